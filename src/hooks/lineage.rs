//! Which hooks had a hand in an object, written into its metadata: for workers, who hear of it from S3,
//! and S3 knows nothing of hooks.

use crate::bucket::Metadata;

const NAME: &str = "s3mount-lineage";

/// The metadata of what these hooks made, oldest first.
pub(super) fn metadata(lineage: &[String]) -> Metadata {
    // Sixteen names of 64 letters at most: half of what S3 takes.
    Metadata::from([(NAME.to_owned(), lineage.join(","))])
}

/// The hooks that had a hand in an object with this metadata.
pub(super) fn of(metadata: &Metadata) -> Vec<String> {
    let names = metadata.get(NAME).map(String::as_str).unwrap_or_default().split(',');
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
