"""What both ends of the wire share: errors as statuses, channels, the principal, Struct and Value."""
