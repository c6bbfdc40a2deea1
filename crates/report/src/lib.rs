//! Terminal, JSON and HTML.
