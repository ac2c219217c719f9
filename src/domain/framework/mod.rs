//! What the documentation says of the Chainer framework images.
