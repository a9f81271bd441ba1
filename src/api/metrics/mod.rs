mod cells;
mod text;
