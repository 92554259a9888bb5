//! Any bytes as a connection's input, through the real server into a log in memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Err(broken) = ackline_ingress_testkit::connection::check(input) {
        panic!("{broken}");
    }
});
