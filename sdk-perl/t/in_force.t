use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use FakeCore;
use Test::More;
use Gatepost::Test;
use Qpsmtpd::Constants;

# Settings in force for the recipients at hand, and what holds for single recipients.

my $dir = "$FindBin::RealBin/plugins";

sub parrots {
    return Gatepost::Test->new(plugins => [
        map { {plugin => "$dir/parrot", name => $_, settings => {word => uc $_}, args => ['x']} } qw(a b)
    ]);
}

sub said {
    my ($test, %in_force) = @_;
    my $hook = delete $in_force{hook} // 'rcpt';
    $test->settings_in_force($in_force{$_}, $_) for qw(a b);
    return [map { join ' ', $_->disposition // 'nothing', $_->message // () } @{$test->results($hook, address => 'x@y')}];
}

subtest 'they are another instance of the plugin they are for' => sub {
    my $test = parrots();
    is_deeply said($test), ['pass A, 1024, 1, x', 'pass B, 1024, 1, x'];
    my %own = (a => {word => 'c', most => '2KB'});
    is_deeply said($test, %own), ['pass c, 2048, 1, x', 'pass B, 1024, 2, x'];
    is_deeply said($test, %own), ['pass c, 2048, 2, x', 'pass B, 1024, 3, x'];
    is_deeply said($test), ['pass A, 1024, 2, x', 'pass B, 1024, 4, x'];
    is_deeply said($test, a => {word => 'c'}), ['pass c, 1024, 1, x', 'pass B, 1024, 5, x'], 'complete, so that there is the default';
};

subtest 'settings that are refused' => sub {
    my $test = parrots();
    my @cases = (
        [{most => 'lots', word => 'c'} => 'most: `most` should be a size such as "10MB"'],
        [{} => 'word: `word` is missing'],
        [{word => 'gone'} => 'no such parrot'],
    );
    for my $case (@cases) {
        my ($settings, $said) = @$case;
        my $results = said($test, b => $settings);
        like $results->[0], qr/^pass A/;
        is $results->[1], "error the settings in force cannot be used: $said", $said;
        is_deeply said($test, a => $settings), ["error the settings in force cannot be used: $said"], 'which ends the segment';
    }
    like said($test)->[0], qr/^pass A/, 'nothing of it is left';
};

subtest 'the plugin takes part where it does, and its first instance' => sub {
    my $test = parrots();
    is_deeply said($test, a => {word => 'c', only => 'data_post'}), ['nothing', 'pass B, 1024, 1, x'];
    is_deeply said($test, a => {word => 'c', only => 'data_post'}, hook => 'data_post'), ['pass c, 1024, 1, x', 'pass B, 1024, 2, x'];
    $test = Gatepost::Test->new(plugin => "$dir/parrot", name => 'a', settings => {word => 'A', only => 'rcpt'});
    is_deeply said($test, a => {word => 'c'}, hook => 'data_post'), ['nothing'];
};

subtest 'the instance that was not asked for longest is forgotten' => sub {
    my $packages = sub { no strict 'refs'; scalar grep { /^_in_force/ } keys %{'Qpsmtpd::Plugin::a::'} };
    my $before = $packages->();
    my $test = parrots();
    $Gatepost::Test::gone = 0;
    my @words = map { "w$_" } 0 .. 64;
    said($test, a => {word => $_}) for @words[0 .. 63], @words[0, 64];
    is $Gatepost::Test::gone, 1, 'with all it had';
    # Those that earlier tests left are gone by now.
    cmp_ok $packages->() - $before, '<=', 64;
    like said($test, a => {word => "w$_->[0]"})->[0], qr/^pass w$_->[0], 1024, $_->[1], x$/ for [0, 3], [64, 2], [2, 2], [1, 1];

    said($test, a => {word => 'kept'});
    my $kept = $test->connection->notes('kept');
    said($test, a => {word => $_}) for @words;
    is $kept->word, 'kept', 'but for one that somebody still has';
};

subtest 'instances that were asked about a session are told of its end' => sub {
    my $test = parrots();
    said($test, a => {word => 'c'});
    for my $case ([deny => 'AB'], [reset_transaction => 'AcB'], [disconnect => 'AcB'], [disconnect => 'AB']) {
        my ($hook, $heard) = @$case;
        is_deeply [$test->hook($hook)->log], [map { "info $_ heard $hook" } split //, $heard], $hook;
    }
};

subtest 'over the wire' => sub {
    my $core = FakeCore->new;
    my $ready = $core->start(map { {name => $_, source => "$dir/parrot", settings => {word => uc $_}} } qw(a b));
    is $ready->{kind}, 'ready';
    my $said = sub { my $results = $core->hook(rcpt => args => {address => 'x@y'}, @_); $results && [map { $_->{message} } @$results] };
    is_deeply $said->(settings => {b => {word => 'c'}}), ['A, 1024, 1', 'c, 1024, 1'];
    is_deeply $said->(), ['A, 1024, 2', 'B, 1024, 1'];
    is $said->(settings => {b => {word => 'leave'}}), undef;
    is $core->wait_exit, 3;
    like $core->stderr, qr{\Agatepost-perl: the plugin b called exit\(3\) in the hook rcpt at \S+/parrot line 12\n\z};
};

subtest 'what holds for single recipients' => sub {
    my $test = Gatepost::Test->new(
        plugins => [map { {plugin => "$dir/shares", name => "shares$_"} } 1, 2], message => "Subject: x\n\ny\n",
        transaction => {recipients => [map { "$_\@example.org" } qw(no later yes skip other)]},
    );
    my @results = @{$test->results('data_post')};
    is @results, 1, 'it ends the segment';
    my $result = $results[0];
    is_deeply [map { $result->$_ } qw(verdict disposition message)], [undef, 'pass', 'most of them'];
    my $recipients = $result->recipients;
    is_deeply [sort keys %$recipients], [map { "$_\@example.org" } qw(later no skip yes)];
    is_deeply $result->entry->{recipients}, [
        {
            address => 'no@example.org', verdict => 'deny', message => 'mailbox full really (#5.2.2)',
            reply => ['mailbox full', 'really (#5.2.2)'], enhanced => '5.2.2',
        },
        map { {address => "$_->[0]\@example.org", verdict => $_->[1]} } [later => 'denysoft'], [yes => 'ok'], [skip => 'declined'],
    ];
    is $recipients->{'no@example.org'}->rc, DENY;
    is_deeply $result->changes, [
        {op => 'route', route => 'lmtp'}, {op => 'route', route => 'list', address => 'no@example.org'},
        {op => 'route', route => undef, address => 'skip@example.org'},
    ];
    is_deeply $test->routes, {map { ("$_->[0]\@example.org" => $_->[1]) } [no => 'list'], map { [$_ => 'lmtp'] } qw(later yes other)};

    $test = Gatepost::Test->new(plugin => "$dir/shares", transaction => {recipients => ['no@example.org', 'odd@example.org']});
    $result = $test->hook('data_post');
    is $result->message, 'died: recipient_verdict: "7" is no return code', 'a failure is for all';
    is_deeply $result->recipients, {};
    $test = Gatepost::Test->new(plugin => "$dir/shares", transaction => {recipients => [map { "$_\@example.org" } 1 .. 7]});
    is_deeply [keys %{$test->hook('data_post')->recipients}], ['"a b"@example.org'], 'an address may be text';

    ok !eval { $test->hook(rcpt => address => 'no@example.org'); 1 };
    is $@, "the core would refuse this: at `rcpt` there are no outcomes for single recipients\n";
};

subtest 'the route of the recipients at hand' => sub {
    my $core = FakeCore->new;
    my $ready = $core->start({name => 'shares', source => "$dir/shares"});
    my ($queue) = grep { $_->{hook} eq 'queue' } @{$ready->{plugins}[0]{hooks}};
    ok scalar grep({ $_ eq 'route' } @{$queue->{fields}}), 'is asked for';
    my $reply = sub { $core->hook(queue => transaction => 1, @_)->[0]{reply} };
    is_deeply $reply->(transaction_fields => {route => 'lmtp'}), ['by lmtp'];
    is_deeply $reply->(), ['by itself'], 'and is that of no others';
};

done_testing;
