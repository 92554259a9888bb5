//! Any bytes as a file of the spool: what recovery yields is whole, in sequence and a prefix.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(broken) = ackline_ingress_testkit::spool::check(bytes) {
        panic!("{broken}");
    }
});
