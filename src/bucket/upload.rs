//! Multipart upload: parts in parallel, one version at the end.
