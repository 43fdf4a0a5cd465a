//! L3 control: the admin server.
