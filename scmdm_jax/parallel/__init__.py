"""Where arrays live when there is more than one device."""
