//! Every kind of stored record of this crate is read whichever version wrote it.

use super::Stored;
use crate::model::{self, Entity, Installation};
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
    macro_rules! kinds {
        ($($section:ident: $Type:ident [$Key:ty $(=> $Held:ty)?],)*) => {
            $(check::<model::$Type>(&model::$Type::NOUN.replace(' ', "_"));)*
        };
    }
    crate::entities!(kinds);
    check::<Installation>("installation");
}
