//! What a grammar may cost, so that whoever sends a hostile one gets an error soon and nobody else notices.

use std::time::Duration;

use llguidance::api::ParserLimits;

/// Bytes of a source: the text of a regular expression, a schema written as JSON.
pub const SOURCE_BYTES_MAX: usize = 256 << 10;

/// Schemas within schemas, arrays within arrays, parentheses within parentheses.
pub const DEPTH_MAX: usize = 64;

/// Schemas in a schema.
pub const SCHEMAS_MAX: usize = 4_000;

/// Values of all `enum`s of a schema together, or alternatives of a choice.
pub const CHOICES_MAX: usize = 2_000;

/// A compilation that takes longer fails.
pub const COMPILE_TIME_MAX: Duration = Duration::from_millis(400);

/// States that the lexer of a grammar may grow to, of about 1 kB each.
const STATES_MAX: usize = 50_000;

/// A grammar whose shared lexer has grown past this gets a new one for the requests to come.
pub const SHARED_STATES_MAX: usize = 10_000;

/// Bounds within the matcher: of compilation about 100 ms, of a mask some milliseconds.
pub fn parser() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2_000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 50_000,
        step_max_items: 20_000,
        max_lexer_states: STATES_MAX,
        max_grammar_size: 100_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}
