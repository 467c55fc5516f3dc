# Stands for SpamAssassin's spamd, which is asked for header fields alone (HEADERS): a message with the letters PILLS is worth 20 points,
# one with the letters HMM 6, others -1.
#
# perl spamd.pl SOCKET

use strict;
use warnings;

use IO::Socket::UNIX;

my ($path) = @ARGV;
my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 16) or die "$path: $!\n";
STDOUT->autoflush(1);
print "$path\n";
while (my $client = $listener->accept) {
    # The client says that it is at the end by closing its side.
    my ($head, $message) = split /\r\n\r\n/, do { local $/; <$client> // '' }, 2;
    my ($length) = $head =~ /\AHEADERS SPAMC\/1\.[0-9]\r\nContent-length: ([0-9]+)\r\nUser: \S+\z/;
    if (!defined $length || $length != length $message) {
        print {$client} "SPAMD/1.0 76 EX_PROTOCOL\r\n";
        next;
    }
    my ($verdict, $score) = $message =~ /PILLS/ ? ('Yes', '20.0') : $message =~ /HMM/ ? ('Yes', '6.0') : ('No', '-1.0');
    my @fields = ("X-Spam-Status: $verdict, score=$score required=5.0 tests=LETTERS\r\n\tautolearn=no version=4.0.0");
    unshift @fields, 'X-Spam-Flag: YES' if $verdict eq 'Yes';
    print {$client} "SPAMD/1.1 0 EX_OK\r\nSpam: ", $verdict eq 'Yes' ? 'True' : 'False', " ; $score / 5.0\r\n\r\n", map { "$_\r\n" } @fields, '';
}
