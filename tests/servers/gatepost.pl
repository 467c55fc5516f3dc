# Another Gatepost, that mail is sent on to. Says the port that it listens on.
#
# perl gatepost.pl PROGRAM CONFIGURATION

use strict;
use warnings;

my ($program, $config) = @ARGV;
pipe my $reads, my $writes or die "pipe: $!\n";
my $child = fork // die "fork: $!\n";
if ($child) {
    # The daemon takes this process's place, so that it is the one that is ended.
    open STDERR, '>&', $writes or die "standard error: $!\n";
    open STDOUT, '>', '/dev/null' or die "standard output: $!\n";
    close $_ for $reads, $writes;
    exec $program, 'run', '-c', $config or die "$program: $!\n";
}
close $writes;
STDOUT->autoflush(1);
while (my $line = readline $reads) {
    print "$1\n" if $line =~ /listen: listening on \S+:([0-9]+) /;
}
