//! Placeholder until the adapter is here.
pub struct Empty;
impl fuser::Filesystem for Empty {}
