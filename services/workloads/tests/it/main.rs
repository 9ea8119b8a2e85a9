//! The service over a real bus, with hosts that follow a script.
