# Stands for p0f, version 2 or 3 as it is asked: has seen Windows XP at one address, and nothing of any other.
#
# perl p0f.pl SOCKET ADDRESS

use strict;
use warnings;

use IO::Socket::UNIX;

my ($path, $windows) = @ARGV;
my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 16) or die "$path: $!\n";
STDOUT->autoflush(1);
print "$path\n";
while (my $client = $listener->accept) {
    read $client, my $magic, 4;
    print {$client} unpack('L', $magic) == 0x0defaced ? version_2($client) : version_3($client);
    $client->flush;
    # Version 3 is asked twice, and read once.
    1 while sysread $client, my $rest, 64;
}

# Behind the magic number kind and number of the query, and the addresses and ports of both sides.
sub version_2 {
    my $client = shift;
    read $client, my $query, 20;
    my $known = join('.', unpack 'x8 C4', $query) eq $windows;
    # Magic number, number of the query, kind, system and its version, distance, link, type of service, and seven numbers.
    return pack 'L L C Z20 Z40 c Z30 Z30 C3 s S N', 0x0defaced, 1, $known ? (0, 'Windows', 'XP') : (2, '', ''), 3, 'Ethernet', '', (0) x 6;
}

# Behind the magic number 4, for IPv4, and the address in 16 bytes.
sub version_3 {
    my $client = shift;
    read $client, my $query, 17;
    my ($status, @system) = join('.', unpack 'x C4', $query) eq $windows ? (0x10, 'Windows', 'XP') : (0x20, '', '');
    # Magic number, status, first and last seen, count, uptime, its modulus, NAT, change of system, distance, two matches, and texts.
    return pack 'L9 s C2 (a32)6', 0x50304602, $status, 1 .. 5, 0, 0, 3, 0, 0, @system, '', '', 'Ethernet', 'English';
}
