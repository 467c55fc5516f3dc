//! What plugins may ask of the core: DNS, flat files, the state store.
