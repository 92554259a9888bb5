//! The edge from outside: splitting against a reference, the protocol over a pipe, and a real nats-server.

//mod against_nats;
mod bodies;
//mod client;
//mod memory_log;
//mod protocol;
mod reference;
