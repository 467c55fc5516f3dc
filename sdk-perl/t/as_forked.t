use strict;
use warnings;

use Cwd ();
use FindBin;
use Test::More;
use Gatepost::Host;
use Gatepost::Memory;
use Gatepost::Test;
use Qpsmtpd::Constants;

# Plugins were written for a process that is forked for each connection, and gets back what that gave them.

my $dir = "$FindBin::RealBin/plugins";

# A host with a plugin, and a hook of any session: gives the first result.
sub host {
    my @names = @_;
    my $host = Gatepost::Host->new;
    my @errors = $host->load([map { {name => $_, source => $_, dirs => [$dir]} } @names]);
    is_deeply \@errors, [], 'loads';
    return sub {
        my ($session, $hook, %more) = @_;
        my %message = (hook => $hook, session => $session, plugins => \@names, connection => {remote_ip => '192.0.2.7', local_port => 25}, %more);
        return Gatepost::Hooks::is_event($hook) ? $host->event(\%message) : ($host->run(\%message))[0][-1];
    };
}

sub lines { join "\n", @{$_[0]{reply} // []} }

subtest 'a plugin object for each session' => sub {
    my $ask = host('legacy');
    local $Gatepost::Core::backend = Gatepost::Memory->new;
    my $ehlo = sub { lines($ask->($_[0], 'ehlo', args => {host => $_[1]})) };
    is $ehlo->(one => 'a'), '1 a 2';
    is $ehlo->(one => 'b'), '2 a b 2', 'it lasts as long as the session';
    is $ehlo->(two => 'c'), '1 c 2', 'nobody else sees it';
    $ask->('one', 'disconnect');
    $ask->('two', 'disconnect');
    no warnings 'once';
    is_deeply \@Qpsmtpd::Plugin::legacy::shut, ['post-connection 2', 'post-connection 1'], 'at the end too';
    is $ehlo->(one => 'd'), '1 d 2', 'a new session';
};

subtest 'before the connection' => sub {
    my $ask = host('legacy');
    local $Gatepost::Core::backend = Gatepost::Memory->new;
    my $before = sub { $ask->(@_)->{changes}[0]{value} };
    my $arrives = sub { my ($id, $number, %more) = @_; $before->($id, 'pre_connection', args => {connections => $number, max_connections => 5}, %more) };
    is $arrives->('one', 3), 'pre-connection 192.0.2.7 25 5 192.0.2.7,192.0.2.7', 'with the other connections of the client';
    like $arrives->('six', 2, connection => {remote_ip => '2001:db8::7', local_port => 25}), qr/ 5 2001:db8::7\z/, 'of IPv6';
    like $arrives->('local', 1, connection => {}), qr/ 5 \z/, 'without an address';
    my @others = split /,/, $arrives->('many', 100_000);
    is scalar @others, 1000, 'within bounds';
    like lines($ask->('one', 'connect')), qr/ checkpassword\z/, 'with the notes of register';
    my $refused = $ask->('two', 'pre_connection', connection => {remote_ip => '192.0.2.66'});
    is $refused->{verdict}, 'denysoft';
};

subtest environment => sub {
    my $ask = host('legacy');
    local $Gatepost::Core::backend = Gatepost::Memory->new;
    local @ENV{qw(TCPREMOTEIP RELAYCLIENT)} = ('10.9.8.7', '');
    is lines($ask->('one', 'noop')), '192.0.2.7 Unknown 25 ';
    is lines($ask->('one', 'noop')), '192.0.2.7 Unknown 25 -', 'what a plugin takes away is gone for the connection';
    is lines($ask->('two', 'noop', connection => {remote_ip => '192.0.2.8', remote_host => 'a.example', local_port => 587})),
        '192.0.2.8 a.example 587 ', 'and no other';
    is $ENV{TCPREMOTEIP}, '10.9.8.7', 'as it was';
    is $ENV{RELAYCLIENT}, '';
    delete $ENV{RELAYCLIENT};
    like lines($ask->('three', 'noop', connection => {remote_ip => '192.0.2.8', relay_client => 1})), qr/ 1\z/, 'known to the core';
};

subtest auth => sub {
    my $ask = host('legacy');
    local $Gatepost::Core::backend = Gatepost::Memory->new;
    my $auth = sub {
        my %args = (mechanism => shift, @_);
        my ($result) = grep { $_->{verdict} } map { scalar $ask->('one', $_, args => \%args) } qw(auth_mechanism auth);
        return "$result->{verdict} " . lines($result);
    };
    is $auth->('PLAIN', user => 'bob', password => 'secret'), 'ok auth-plain';
    is $auth->('PLAIN', user => 'bob', password => 'guess'), 'deny wrong';
    is $auth->('PLAIN', user => 'stranger', password => 'x'), 'deny nobody said plain', 'then the hook auth';
    is $auth->('CRAM-MD5', user => 'bob', response => 'ab', challenge => '<1@mx>'), 'ok ab of <1@mx>';
    is $auth->('LOGIN', user => 'bob', password => 'x'), 'deny nobody said login';
};

subtest 'parsers' => sub {
    my $ask = host('legacy');
    local $Gatepost::Core::backend = Gatepost::Memory->new;
    my $mail = sub { $ask->('one', 'mail_parse', args => {line => $_[1]}, connection => {hello => $_[0]}) };
    is $mail->('EHLO', 'FROM:<a@b.example>')->{verdict}, undef;
    is_deeply $mail->('HELO', 'from a@b.example')->{values}, ['FROM:<a@b.example> SIZE=10 SMTPUTF8'];
    my $refused = $mail->('HELO', 'nonsense');
    is_deeply [@$refused{qw(verdict code reply)}], ['deny', 501, ['no such thing as nonsense']];
    is_deeply $ask->('one', 'ehlo_parse', args => {line => 'x'})->{values}, ['client.example more'];
    is $ask->('one', 'noop')->{code}, undef, 'the code is that reply\'s alone';
};

subtest 'what others would feel' => sub {
    my $test = Gatepost::Test->new(plugin => "$dir/spoils");
    my $here = Cwd::getcwd();
    my $rcpt = sub { $test->hook(rcpt => address => "$_[0]\@example.org") };
    my $at = qr{ at \Q$dir\E/spoils line [0-9]+\z};
    my ($line) = $rcpt->('chdir')->log;
    like $line, qr/\Awarn changed the working folder to \/; it is changed back$at/;
    is Cwd::getcwd(), $here;
    is $rcpt->('dies')->message, 'died: no more';
    is Cwd::getcwd(), $here, 'also when it dies';
    {
        local $SIG{CHLD} = 'DEFAULT';
        ($line) = $rcpt->('ignore')->log;
        like $line, qr/\Awarn set \$SIG\{CHLD\}, which is taken back.*$at/;
        is $SIG{CHLD}, 'DEFAULT';
    }
    ($line) = $rcpt->('child')->log;
    like $line, qr/\Awarn left a child behind, process [0-9]+, which has ended$at/;
    is waitpid(-1, 0), -1, 'no zombie is left';
    is_deeply [$rcpt->('nobody')->log], [];
};

subtest logging => sub {
    my $ask = host('listens');
    local $Gatepost::Core::backend = Gatepost::Memory->new;
    my $said = '6 rcpt listens pass, fine';
    is lines($ask->('one', 'rcpt', args => {address => 'bob@example.org'})), "1 $said";
    is lines($ask->('one', 'rcpt', args => {address => 'bob@example.org'})), "2 $said|$said";
    is lines($ask->('two', 'rcpt', args => {address => 'bob@example.org'})), "1 $said", 'the logging plugin is one for each session too';
};

done_testing;
