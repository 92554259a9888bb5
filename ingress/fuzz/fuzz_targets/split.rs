//! Any bytes: every update must be what a slow reference makes of them, byte for byte.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    if let Err(broken) = ackline_ingress_testkit::invariants::compare(body) {
        panic!("{broken}");
    }
});
