"""`zaqar-gevent store copy`: all that one store holds, copied to another."""
