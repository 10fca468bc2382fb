//! Makes a PNG or JPEG small: at most `THUMBNAIL_PIXELS` (256) on each side, upright, in the same
//! format and under the same name.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use image::{DynamicImage, ImageDecoder, ImageReader};

/// The host does not try again: the same bytes would fail the same way.
const FATAL: u8 = 65;

fn main() -> ExitCode {
    match shrink() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(if error.is::<image::ImageError>() { FATAL } else { 1 })
        }
    }
}

fn shrink() -> Result<(), Box<dyn Error>> {
    let input = std::env::var("S3MOUNT_INPUT")?;
    let output = Path::new("/out").join(std::env::var("S3MOUNT_NAME")?);
    let pixels = std::env::var("THUMBNAIL_PIXELS").map_or(Ok(256), |value| value.parse())?;

    let reader = ImageReader::open(input)?.with_guessed_format()?;
    let format = reader.format().ok_or("neither a PNG nor a JPEG")?;
    let mut decoder = reader.into_decoder()?;
    // Cameras store what the sensor saw, and beside it how the camera was held.
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);

    let small = if picture.width().max(picture.height()) > pixels { picture.thumbnail(pixels, pixels) } else { picture };
    eprintln!("{} x {} pixels", small.width(), small.height());
    fs::create_dir_all(output.parent().ok_or("a file without a directory")?)?;
    match format {
        // JPEG knows neither transparency nor 16 bits.
        image::ImageFormat::Jpeg => small.into_rgb8().save_with_format(output, format)?,
        _ => small.save_with_format(output, format)?,
    }
    Ok(())
}
