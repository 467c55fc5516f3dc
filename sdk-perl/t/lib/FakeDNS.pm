package FakeDNS;

# A DNS server on loopback, in a child, that Net::DNS of this process asks from here on. Load it before Net::DNS.
#
# serve("NAME TYPE" => 'data as in a zone file' or [...], ...)   a name that is not there is NXDOMAIN

use strict;
use warnings;

use IO::Socket::INET;
use POSIX ();

my $child;

sub serve {
    my (%zone) = @_;
    my $socket = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '127.0.0.1') or die "bind: $!";
    @ENV{qw(RES_NAMESERVERS RES_OPTIONS)} = ('127.0.0.1', 'port:' . $socket->sockport . ' retry:1 retrans:2');
    $child = fork // die "fork: $!";
    return if $child;
    # Nobody waits for the end of what it would write.
    open STDOUT, '>', '/dev/null';
    alarm 120;
    require Net::DNS;
    while (defined $socket->recv(my $query, 4096)) {
        my $packet = Net::DNS::Packet->new(\$query) or next;
        my ($question) = $packet->question;
        my $name = lc $question->qname;
        my $reply = $packet->reply;
        my $data = $zone{"$name " . $question->qtype};
        $reply->push(answer => map { Net::DNS::RR->new("$name. 60 IN " . $question->qtype . " $_") } ref $data ? @$data : $data // ());
        $reply->header->rcode(defined $data || grep({ /\A\Q$name\E / } keys %zone) ? 'NOERROR' : 'NXDOMAIN');
        $reply->header->ra(1);
        $socket->send($reply->data);
    }
    POSIX::_exit(0);
}

END { my $code = $?; kill KILL => $child if $child; $? = $code }

1;
