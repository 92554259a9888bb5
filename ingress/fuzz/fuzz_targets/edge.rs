//! Any bytes, signed: verify, split and envelope must hold their invariants.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    if let Err(broken) = ackline_ingress_testkit::invariants::check(body) {
        panic!("{broken}");
    }
});
