"""The blocking client, for threads and greenlets. Use it as `zaqar_gevent.client`."""
