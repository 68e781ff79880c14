"""OpenStack Zaqar over REST and WebSocket from one gevent process and one port."""
