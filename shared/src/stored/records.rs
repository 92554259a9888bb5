//! Every kind of stored record of this crate is read whichever version wrote it.

use super::Stored;
use crate::model::{
    ApiKey, App, Bot, Brand, CrmLink, Endpoint, Flow, Installation, PhoneNumber, Relay, Tenant,
};
use crate::testing::check_ages;
use std::fmt::Debug;
use std::path::Path;

fn check<T: Stored + PartialEq + Debug>(kind: &str) {
    check_ages::<T>(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stored/golden"),
        kind,
    );
}

#[test]
fn the_declared_configuration_is_read_whichever_version_wrote_it() {
    check::<Installation>("installation");
    check::<Brand>("brand");
    check::<Tenant>("tenant");
    check::<App>("app");
    check::<PhoneNumber>("phone_number");
    check::<Bot>("bot");
    check::<Flow>("flow");
    check::<Relay>("relay");
    check::<Endpoint>("endpoint");
    check::<CrmLink>("crm_link");
    check::<ApiKey>("api_key");
}
