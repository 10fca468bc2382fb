//! Trace and span ids as W3C Trace Context has them, and which traces are kept.

use uuid::Uuid;

/// Whose span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    pub trace: [u8; 16],
    pub span: [u8; 8],
}

impl Ids {
    /// Of a trace that begins here.
    pub(super) fn root() -> Self {
        Self { trace: Uuid::new_v4().into_bytes(), span: new_span() }
    }

    /// Of what is done within this span.
    pub(super) fn child(self) -> Self {
        Self { span: new_span(), ..self }
    }
}

/// Never all zeros, which would be no id: an UUID's variant is in it.
fn new_span() -> [u8; 8] {
    let (_, low) = Uuid::new_v4().as_u64_pair();
    low.to_be_bytes()
}

/// Which traces are kept: decided by the last 56 bits of the id, as OpenTelemetry does ("TraceState: Probability
/// Sampling"), so that others who see the same trace can decide alike. An UUID has them all random.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampling {
    /// Kept from here on.
    threshold: u64,
}

impl Sampling {
    /// Keeps this part of all traces, from 0 to 1.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "2^56 is exact, the rest is between 0 and it"
    )]
    pub(super) fn of(ratio: f64) -> Self {
        Self { threshold: ((1.0 - ratio.clamp(0.0, 1.0)) * (1_u64 << 56) as f64) as u64 }
    }

    pub(super) fn keeps_any(self) -> bool {
        self.threshold < 1 << 56
    }

    pub(super) fn keeps(self, ids: &Ids) -> bool {
        let low = u128::from_be_bytes(ids.trace) as u64;
        low & ((1 << 56) - 1) >= self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_has_its_parents_trace_and_a_span_of_its_own() {
        let root = Ids::root();
        let child = root.child();
        assert_eq!(root.trace, child.trace);
        assert_ne!(root.span, child.span);
        assert_ne!(root.trace, Ids::root().trace);
    }

    #[test]
    fn a_part_of_the_traces_is_kept() {
        let ids = |byte: u8| Ids { trace: [byte; 16], span: [1; 8] };
        assert!(Sampling::of(1.0).keeps(&ids(0)) && Sampling::of(1.0).keeps(&ids(255)));
        assert!(!Sampling::of(0.0).keeps(&ids(0)) && !Sampling::of(0.0).keeps(&ids(255)));
        assert!(!Sampling::of(0.0).keeps_any() && Sampling::of(1e-9).keeps_any());
        let quarter = Sampling::of(0.25);
        assert_eq!((0..=255).filter(|byte| quarter.keeps(&ids(*byte))).count(), 64);
    }
}
