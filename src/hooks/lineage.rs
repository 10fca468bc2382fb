//! Which hooks had a hand in an object, written into its metadata: for who meets it later than its event.

use crate::bucket::Metadata;
use crate::bucket::attributes::LINEAGE;

/// The metadata of what these hooks made, oldest first.
pub(super) fn metadata(lineage: &[String]) -> Metadata {
    // Sixteen names of 64 letters at most: half of what S3 takes.
    Metadata::from([(LINEAGE.to_owned(), lineage.join(","))])
}

/// The hooks that had a hand in an object with this metadata.
pub(super) fn of(metadata: &Metadata) -> Vec<String> {
    let names = metadata.get(LINEAGE).map(String::as_str).unwrap_or_default().split(',');
    names.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lineage_is_read_as_it_was_written() {
        let lineage = ["unzip".to_owned(), "thumbnail".to_owned()];
        assert_eq!(of(&metadata(&lineage)), lineage);
        assert_eq!(of(&Metadata::new()), Vec::<String>::new());
        assert_eq!(of(&metadata(&[])), Vec::<String>::new());
    }
}
