//! The message as bytes: the spool, the end of data, the trace headers.
