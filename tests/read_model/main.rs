//! Reads against a model: whatever programs, other clients, crashes and damage do to files and
//! caches, in any order, a read gives the bytes of one version or `ESTALE`, a fresh open shows the
//! newest, and nothing that was acknowledged is lost.
//!
//! [`reference`] says what must be seen, without any of the code under test; [`play`] does each step
//! to a real [`s3mount::fs::Fs`] over real caches, index and journal, and compares.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in what prepares it")]

mod compare;
mod house;
mod play;
mod race;
mod reference;
mod steps;
mod tell;

use std::sync::LazyLock;

use proptest::prelude::*;
use tokio::runtime::Runtime;

use self::play::World;
use self::steps::{Case, Step, any_case};

/// One for all cases: readers and what they wait for run side by side.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

fn run(case: &Case) {
    RUNTIME.block_on(async {
        let mut world = World::new(case).await;
        for step in &case.steps {
            world.play(step).await;
        }
        world.play(&Step::CompareAll).await;
    });
}

#[test]
fn racing_readers_each_see_one_version_where_list_tells_whose_objects_are_whose() {
    RUNTIME.block_on(race::readers_and_others(true));
}

#[test]
fn racing_readers_each_see_one_version_where_it_does_not() {
    RUNTIME.block_on(race::readers_and_others(false));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]
    #[test]
    fn every_read_is_of_one_version_and_nothing_acknowledged_is_lost(case in any_case(60, false)) {
        run(&case);
    }

    /// About one in a thousand cases fails, as far as looked into because a sync may store more than the
    /// model expects: attributes and bytes of files that are being written to.
    #[test]
    #[ignore = "the model does not know yet all that a sync may store"]
    fn so_it_is_in_a_write_back_mount(case in any_case(60, true)) {
        run(&case);
    }
}
