package Qpsmtpd::TcpServer;

# qpsmtpd's server; the core is that here. What plugins ask of it: has_ipv6(), whether IPv6 can be used.

use strict;
use warnings;

use Socket ();

sub has_ipv6 { return defined eval { Socket::pack_sockaddr_in6(0, Socket::inet_pton(Socket::AF_INET6(), '::1')) } ? 1 : 0 }

1;
