//! Environments that are really built, and the example trained in them: minutes, and the network.
