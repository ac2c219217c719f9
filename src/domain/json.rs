//! JSON as it was sent: key order and the spelling of numbers kept, duplicate keys refused.
