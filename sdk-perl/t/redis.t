use strict;
use warnings;

use File::Temp ();
use Test::More;
use Qpsmtpd::DB;

# Qpsmtpd::DB in a Redis of this test's own.

my ($program) = grep { -x } map { "$_/redis-server" } split(/:/, $ENV{PATH}), '/usr/bin';
if (!$program || !eval { require Redis; 1 }) {
    my $why = 'redis-server and the Perl module Redis are not installed: run `make setup`';
    BAIL_OUT("not tested: $why") if ($ENV{CI} // '') eq 'true';
    print STDERR "\n*** NOT TESTED: $why ***\n\n";
    plan(skip_all => $why);
}

my $dir = File::Temp->newdir;
my $socket = "$dir/redis.sock";
my $server = fork // die "fork: $!";
if (!$server) {
    open STDOUT, '>', '/dev/null';
    exec $program, '--port', 0, '--unixsocket', $socket, '--dir', "$dir", '--save', '';
    die "$program: $!";
}
END { my $code = $?; if ($server) { kill KILL => $server; waitpid $server, 0 } $? = $code }

my $patience = time + 30;
select undef, undef, undef, 0.02 until -S $socket || time > $patience;

my $db = Qpsmtpd::DB->new(name => 'karma', redis_server => $socket, cnx_timeout => 5);
isa_ok $db, 'Qpsmtpd::DB::Redis';
ok $db->lock;
is $db->set(a => 1), 1;
$db->set(b => 2);
is $db->get('a'), 1;
is_deeply [$db->mget(qw(a b c))], [1, 2, undef];
is_deeply [sort $db->get_keys], ['a', 'b'];
is $db->size, 2;
is $db->delete(qw(a c)), 1;
ok $db->unlock;
my $other = Qpsmtpd::DB->new(name => 'grey', redis_server => $socket);
is $other->size, 0, 'tables are apart';
ok $db->flush;
is $db->size, 0;

ok !eval { Qpsmtpd::DB->new(name => 'x', class => 'Qpsmtpd::DB::Redis', redis_server => "$dir/nobody") };
like $@, qr/no database for x can be used: Qpsmtpd::DB::Redis/, 'says why there is none';

done_testing;
