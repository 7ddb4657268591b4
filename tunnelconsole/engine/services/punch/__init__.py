"""The punch system: a direct TCP connection between two hosts behind NATs, found by a rendezvous, or a relayed one."""
