//! HMAC-SHA256 of a body with a key that was prepared once, as the edge prepares its apps' secrets.

use crate::Candidate;
use ackline_shared::signature::SigningKey;
use anyhow::{Result, ensure};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Ours (`hmac` and `sha2`), ring's and AWS-LC's, after a check that they agree.
pub fn candidates(body: &[u8]) -> Result<Vec<Candidate<'_>>> {
    let ours = SigningKey::from_bytes(SECRET);
    let ring = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET);
    let aws = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET);
    let digest = ours.digest(&[body]);
    ensure!(
        digest.as_slice() == ring::hmac::sign(&ring, body).as_ref(),
        "ring signs differently"
    );
    ensure!(
        digest.as_slice() == aws_lc_rs::hmac::sign(&aws, body).as_ref(),
        "aws-lc-rs signs differently"
    );
    Ok(vec![
        Candidate::new("hmac + sha2", move || ours.digest(&[body])),
        Candidate::new("ring", move || ring::hmac::sign(&ring, body)),
        Candidate::new("aws-lc-rs", move || aws_lc_rs::hmac::sign(&aws, body)),
    ])
}
