"""What of usage is on a volume: the journal, what is under way, and how processes that share one keep apart."""
