//! The soak of `tools/soak/run`, in short: after a round of every load nothing of it is
//! left in the process.

use std::time::Duration;

use crate::GATEWAY;
use crate::soak::{self, Plan, Programs, WarmUp};
use crate::support::alone;

#[test]
fn nothing_stays_behind_when_all_have_left() {
    alone(|| {
        let programs = Programs {
            gateway: GATEWAY.into(),
            flood: env!("CARGO_BIN_EXE_rtmp-flood").into(),
        };
        let plan = Plan {
            round: Duration::from_secs(8),
            lasts: Duration::from_secs(8),
            warm_up: WarmUp::None,
        };
        let complaints = soak::run(&programs, &plan);
        assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    });
}
