//! Any bytes as a file of the spool: what recovery yields is whole, in sequence and a prefix.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(broken) = ackline_ingress::store::spool::invariants::check(bytes) {
        panic!("{broken}");
    }
});
