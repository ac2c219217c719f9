//! One small piece per rule, and the catalogue of all.
