//! Reads the event on stdin as a Lambda function does, and answers with the object's key.

use std::error::Error;
use std::io;

fn main() -> Result<(), Box<dyn Error>> {
    let event: serde_json::Value = serde_json::from_reader(io::stdin().lock())?;
    let key = event["Records"][0]["s3"]["object"]["key"].as_str().ok_or("an event without a key")?;
    println!("{key}");
    Ok(())
}
