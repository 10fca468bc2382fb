//! What functions there are: ListFunctions, GetFunction, GetFunctionConfiguration.

use serde_json::{Value, json};

use super::Settings;
use super::answers::Refusal;
use crate::hooks::Description;

/// As local stand-ins of AWS have it.
const ACCOUNT: &str = "000000000000";

impl Settings {
    /// The hooks as functions, in the order of their names.
    pub(super) fn list(&self) -> Value {
        let mut hooks = self.described();
        hooks.sort_by(|a, b| a.name.cmp(&b.name));
        let functions: Vec<Value> = hooks.iter().map(|hook| self.configuration(hook)).collect();
        json!({"Functions": functions})
    }

    pub(super) fn get(&self, name: &str) -> Result<Value, Refusal> {
        let hook = self.described().into_iter().find(|hook| hook.name == name);
        let hook = hook.ok_or_else(|| Refusal::of_function(&self.arn(name)))?;
        Ok(json!({
            "Configuration": self.configuration(&hook),
            "Code": {"RepositoryType": "file", "Location": hook.wasm},
            "Concurrency": {"ReservedConcurrentExecutions": hook.concurrency},
        }))
    }

    pub(super) fn arn(&self, name: &str) -> String {
        format!("arn:aws:lambda:{}:{ACCOUNT}:function:{name}", self.region)
    }

    fn described(&self) -> Vec<Description> {
        (self.hooks)().map(|hooks| hooks.describe()).unwrap_or_default()
    }

    /// Values of the environment may be secrets: they are left out.
    fn configuration(&self, hook: &Description) -> Value {
        json!({
            "FunctionName": hook.name,
            "FunctionArn": self.arn(&hook.name),
            "Runtime": "provided.al2023",
            "Handler": hook.wasm.file_name().unwrap_or_default().to_string_lossy(),
            "Role": format!("arn:aws:iam::{ACCOUNT}:role/s3mount"),
            "Description": "",
            "Timeout": hook.timeout_ms.div_ceil(1000),
            "MemorySize": hook.memory_bytes.div_ceil(1 << 20),
            "EphemeralStorage": {"Size": hook.storage_bytes.div_ceil(1 << 20)},
            "Version": "$LATEST",
            "PackageType": "Zip",
            "State": "Active",
            "LastUpdateStatus": "Successful",
        })
    }
}

/// The name in what AWS takes for one: a name, an ARN or a part of one, with `:$LATEST` or without.
pub(super) fn name_in(text: &str) -> Result<&str, Refusal> {
    let words: Vec<&str> = text.split(':').collect();
    let at = words.iter().position(|word| *word == "function").map_or(0, |at| at + 1);
    match &words[at.min(words.len())..] {
        [name] | [name, "$LATEST"] if !name.is_empty() => Ok(name),
        _ => Err(Refusal::of_function(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_named_as_in_aws() {
        for text in [
            "resize",
            "resize:$LATEST",
            "000000000000:function:resize",
            "function:resize",
            "arn:aws:lambda:us-east-1:000000000000:function:resize",
            "arn:aws:lambda:us-east-1:000000000000:function:resize:$LATEST",
        ] {
            assert_eq!(name_in(text), Ok("resize"), "{text}");
        }
        for text in ["", "resize:7", "a:b:c", "arn:aws:lambda:us-east-1:000000000000:function"] {
            assert!(name_in(text).is_err(), "{text}");
        }
    }
}
