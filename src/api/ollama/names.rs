//! Names of models as Ollama's clients write them: with a tag, `latest` if none is meant.

use crate::api::{error::ApiError, models::ModelStatus, state::Api};

const LATEST: &str = ":latest";

/// The model that a client means: under the name as it is, or with `latest` left out or added.
///
/// # Errors
/// There is none.
pub fn resolve(api: &Api, name: &str) -> Result<ModelStatus, ApiError> {
    let models = api.models();
    let as_it_is = models.status(Some(name));
    let other = match name.strip_suffix(LATEST) {
        Some(plain) => plain.to_owned(),
        None => format!("{name}{LATEST}"),
    };
    as_it_is.or_else(|error| models.status(Some(&other)).map_err(|_| error))
}

/// The name with its tag.
pub fn tagged(name: &str) -> String {
    if name.contains(':') { name.to_owned() } else { format!("{name}{LATEST}") }
}
