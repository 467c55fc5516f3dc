# Stands for vpopmaild: knows one user by one password.
#
# perl vpopmaild.pl USER PASSWORD

use strict;
use warnings;

use IO::Socket::INET;

my ($user, $password) = @ARGV;
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 16) or die "$!\n";
STDOUT->autoflush(1);
print $listener->sockport, "\n";
while (my $client = $listener->accept) {
    $client->autoflush(1);
    print {$client} "+OK\r\n";
    # The plugin says it twice, and hears it once.
    my $login = <$client> // '';
    print {$client} $login eq "login $user $password\n" ? "+OK\r\n" : "-ERR Login failed\r\n";
    1 while <$client>;
}
