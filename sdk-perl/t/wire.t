use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use FakeCore;
use File::Temp ();
use Test::More;

# The program at the other end of real pipes, with the built-in codec and, where it is installed, the fast one.

my $say = {name => 'say', source => 'say', dirs => ["$FindBin::RealBin/plugins"]};
my $codec;

sub core {
    my ($plugins, %args) = @_;
    my $core = FakeCore->new(%args, env => {GATEPOST_CODEC => $codec, %{$args{env} // {}}});
    $core->{answers} = $args{answers} // {};
    $core->{dns_server} = $args{dns_server};
    $core->{ready} = $core->start(@$plugins);
    return $core;
}

sub rcpt {
    my ($core, $user, %more) = @_;
    my $results = $core->hook(rcpt => args => {address => "$user\@example.org", parameters => {}}, transaction => 1, %more);
    return $results && @$results == 1 ? $results->[0] : $results;
}

my %tests = (
    handshake => sub {
        my $core = core([$say]);
        my ($hello) = grep { $_->{kind} eq 'hello' } @{$core->{heard}};
        is $hello->{protocol}, 'gatepost-plugin';
        is_deeply $hello->{version}, [1, 0];
        is_deeply $hello->{features}, [qw(cancel segments settings fork then unfinished)];
        is $core->{ready}{kind}, 'ready';
        is $core->{ready}{concurrency}, 64;
        my ($plugin) = @{$core->{ready}{plugins}};
        is $plugin->{name}, 'say';
        is_deeply $plugin->{policy}, {on_error => 'skip', immune => 0};
        is_deeply [map { $_->{hook} } @{$plugin->{hooks}}], ['rcpt'];
        my %fields = map { $_ => 1 } @{$plugin->{hooks}[0]{fields}};
        my @environment = qw(remote_ip remote_host remote_port local_ip local_port relay_client);
        is_deeply \%fields, {map { $_ => 1 } qw(recipients naughty), @environment}, 'the fields that the file has words for';
        is_deeply $plugin->{hooks}[0]{reads}, ['*'], 'notes, since the file has the word';
    },
    'lines of the log' => sub {
        my $core = core([{name => 'listens', source => 'listens', dirs => ["$FindBin::RealBin/plugins"]}]);
        my ($plugin) = @{$core->{ready}{plugins}};
        my ($log) = grep { $_->{hook} eq 'log' } @{$plugin->{hooks}};
        is_deeply [@$log{qw(mode fields reads)}], ['observe', [], undef], 'an event without fields';
        my $rcpt = sub { $core->hook(rcpt => args => {address => 'bob@example.org', parameters => {}}, transaction => 1)->[0]{reply}[0] };
        is $rcpt->(), '0 ', 'what it found, the core will tell';
        my %found = (level => 'info', plugin => 'queue/listens', hook => 'rcpt', message => 'fail, fine');
        $core->event(log => connection => undef, args => \%found);
        $core->event(log => session => 'gone', connection => undef, args => \%found);
        $core->event(log => session => undef, connection => undef, args => {level => 'emerg', message => 'listen: here'});
        is $rcpt->(), '1 6 rcpt queue::listens fail, fine', 'told what is said of its session, by the name that qpsmtpd has for the plugin';
        is_deeply [grep { $_->{kind} eq 'log' } @{$core->{heard}}], [], 'what it said itself then is lost';
        $core = core([map { {name => $_, source => $_, dirs => ["$FindBin::RealBin/plugins"], settings => {word => 'w'}} } qw(listens parrot)]);
        $core->event('disconnect');
        $core->hook('noop');
        is_deeply [map { $_->{told} } grep { $_->{kind} eq 'log' } @{$core->{heard}}], [1], 'the core need not tell what was told';
        $core = core([{name => 'parrot', source => 'parrot', dirs => ["$FindBin::RealBin/plugins"], settings => {word => 'w'}}]);
        $core->event('disconnect');
        $core->hook('noop');
        is_deeply [map { $_->{told} } grep { $_->{kind} eq 'log' } @{$core->{heard}}], [undef], 'nobody was told';
    },
    verdicts => sub {
        my $core = core([$say]);
        is_deeply rcpt($core, 'decline'), {plugin => 'say'}, 'nothing to say';
        is_deeply rcpt($core, '007'), {plugin => 'say'};
        is_deeply rcpt($core, 'deny'), {plugin => 'say', verdict => 'deny', reply => ['no'], message => 'no'};
        is_deeply rcpt($core, 'soft'),
            {plugin => 'say', verdict => 'denysoft', reply => ['not now', 'really'], message => 'not now really'};
        is rcpt($core, 'hangup')->{verdict}, 'deny_disconnect';
        is_deeply rcpt($core, 'ok'), {plugin => 'say', verdict => 'ok'};
        is_deeply rcpt($core, 'done'), {plugin => 'say', verdict => 'done', code => 252, reply => ['as you', 'wish']};
        is_deeply rcpt($core, 'dsn'), {
            plugin => 'say', verdict => 'deny', reply => ['nobody (#5.1.1)'], message => 'nobody (#5.1.1)', enhanced => '5.1.1',
        };
    },
    'two hooks in one request' => sub {
        my $core = core([{name => 'steps', source => 'steps', dirs => ["$FindBin::RealBin/plugins"]}]);
        my $both = sub {
            my $address = "$_[0]\@example.org";
            splice @{$core->{heard}};
            $core->send($core->hook_message(
                mail_pre => args => {line => "<$address>", address => $address, parameters => {}},
                then => {hook => 'mail', plugins => ['steps'], transaction => 1},
            ));
            return $core->wait_for('result');
        };
        my $result = $both->('quiet');
        is_deeply $result->{results}, [{plugin => 'steps'}];
        my $words = 'mail from quiet@example.org';
        is_deeply $result->{then}, [{plugin => 'steps', verdict => 'deny', reply => [$words], message => $words}], 'the second ran at once';
        is_deeply [map { $_->{then} } grep { $_->{kind} eq 'log' } @{$core->{heard}}], [1], 'its lines are said to be its own';
        for my $word (qw(speaks notes slow)) {
            $result = $both->($word);
            is $result->{then}, undef, "$word: the core is to ask again";
            is_deeply [grep { $_->{kind} eq 'log' } @{$core->{heard}}], [];
        }
        is_deeply $core->hook(mail => args => {address => 'next@example.org', parameters => {}}, transaction => 1)->[0]{reply}, ['mail from next@example.org'];
        is_deeply [map { $_->{then} } grep { $_->{kind} eq 'log' } @{$core->{heard}}], [undef], 'its lines belong to the one that was asked';
    },
    'bad return codes' => sub {
        my $core = core([$say]);
        for my $word (qw(nothing zero word near)) {
            $core->take_log;
            is_deeply rcpt($core, $word), {plugin => 'say'}, "$word is declined";
            like join("\n", $core->take_log), qr/^error say: returned .* in rcpt.*taken as DECLINED at \S+ line [0-9]+$/, 'and logged';
        }
    },
    dispositions => sub {
        my $core = core([$say]);
        is_deeply rcpt($core, 'pass'), {plugin => 'say', disposition => 'pass', message => 'on reflection'};
        is_deeply [$core->take_log], ['info say: fail, first thought'], 'the last one wins, the others are lines';
        is_deeply rcpt($core, 'tolerate'),
            {plugin => 'say', disposition => 'fail', message => 'tolerated, a spammer', verdict => 'declined'};
        is_deeply rcpt($core, 'lines'), {plugin => 'say'};
        is_deeply [$core->take_log], ['warn say: one two', 'debug say: pass, unseen'];
    },
    die => sub {
        my $core = core([$say]);
        is_deeply rcpt($core, 'die'), {plugin => 'say', disposition => 'error', message => 'died: out of paper'};
        like rcpt($core, 'object')->{message}, qr/^died: Some::Error=/;
        is_deeply rcpt($core, 'deny')->{reply}, ['no'], 'and goes on';
    },
    exit => sub {
        my $core = core([$say]);
        is rcpt($core, 'exit'), undef, 'the channel ends';
        is $core->wait_exit, 3;
        like $core->stderr, qr{\Agatepost-perl: the plugin say called exit\(3\) in the hook rcpt at \S+/say line [0-9]+\n\z};
    },
    print => sub {
        my $core = core([$say]);
        is_deeply rcpt($core, 'print'), {plugin => 'say'};
        is_deeply [$core->take_log], ["notice say: printed to standard output: stray at $FindBin::RealBin/plugins/say line 19"], 'and where';
        is $core->stdout, '', 'beside the channel';
        like $core->stderr, qr/warned/;
    },
    children => sub {
        my $core = core([$say]);
        is_deeply rcpt($core, 'fork')->{reply}, ['child said 7'];
        is_deeply [$core->take_log], [], 'the child cannot write to the channel';
        is $core->stderr, "say: from the child\n";
        is_deeply rcpt($core, 'stray')->{reply}, ['from the parent 255'], 'a child that returns from a hook ends';
        is_deeply rcpt($core, 'signals')->{reply}, ['CHLD=DEFAULT'];
        is_deeply rcpt($core, 'system')->{reply}, ['0 1 2 3'], 'neither channel nor input for a program; 3 is ls reading';
    },
    'a child of register' => sub {
        my $core = core([{name => 'f', source => "$FindBin::RealBin/plugins/forks_in_register"}]);
        is $core->{ready}{kind}, 'ready';
        is_deeply rcpt($core, 'any')->{reply}, ['its child ended with 255'], 'ends where it would go on as the program';
    },
    segment => sub {
        my $core = core([map { {%$say, name => "say$_"} } 1 .. 3]);
        is_deeply $core->hook(rcpt => args => {address => 'decline@x.example'}), [map { {plugin => "say$_"} } 1 .. 3];
        is_deeply [map { $_->{plugin} } @{$core->hook(rcpt => args => {address => 'deny@x.example'})}], ['say1'], 'stops';
        is_deeply [map { $_->{disposition} } @{$core->hook(rcpt => args => {address => 'die@x.example'})}],
            ['error'], 'what the policy is to judge ends it';
        is_deeply [map { $_->{plugin} } @{$core->hook(rcpt => args => {address => 'deny@x.example'}, plugins => ['say2', 'say3'])}],
            ['say2'], 'only those that are asked';
        is_deeply $core->hook(connect => args => {}), [map { {plugin => "say$_"} } 1 .. 3], 'also without code for a hook';
    },
    'settings and arguments' => sub {
        my $core = core([{%$say, args => ['reject', 'naughty', 'loglevel', '-1']}]);
        is_deeply $core->{ready}{plugins}[0]{policy}, {on_error => 'skip', immune => 0, loglevel => '-1'};
        my $result = rcpt($core, 'deferred');
        is_deeply $result, {
            plugin => 'say', disposition => 'fail', message => 'NAUGHTY, listed', verdict => 'declined',
            changes => [{op => 'naughty', message => '(say) later'}],
        };
        $core = core([{%$say, args => ['reject', '0']}]);
        is rcpt($core, 'deferred')->{message}, 'tolerated, listed';
        $core = core([$say]);
        is rcpt($core, 'deferred')->{verdict}, 'deny';
    },
    'init errors' => sub {
        my $core = core([
            {name => 'a', source => 'missing', dirs => ['/nowhere']},
            {name => 'b', source => "$FindBin::RealBin/plugins/broken"},
            {name => 'c', source => "$FindBin::RealBin/plugins/dies_in_register"},
        ]);
        is $core->{ready}{kind}, 'init_error';
        my %why = map { $_->{plugin} => $_->{message} } @{$core->{ready}{errors}};
        is $why{a}, 'no such plugin file; looked for /nowhere/missing, missing';
        like $why{b}, qr{/plugins/broken" line 3|plugins/broken line 3};
        like $why{c}, qr/^no database at .*dies_in_register line 5/;
        $core->close_channel;
        is $core->wait_exit, 1;

        $core = core([{name => 'q', source => "$FindBin::RealBin/plugins/exits_in_register"}]);
        my ($error) = @{$core->{ready}{errors}};
        is $error->{plugin}, 'q';
        like $error->{message}, qr{\Acalled exit\(3\) while it was loaded at \S+/exits_in_register line 3\z};
        is $core->wait_exit, 3;
    },
    'the DNS server' => sub {
        plan skip_all => 'no Net::DNS' unless eval { require Net::DNS };
        my $asks = {name => 'asks_dns', source => 'asks_dns', dirs => ["$FindBin::RealBin/plugins"]};
        my %asked = ('192.0.2.53:5353' => '192.0.2.53 5353', '[2001:db8::53]:53' => '2001:db8::53 53');
        for my $server (sort keys %asked) {
            my $core = core([$asks], dns_server => $server, env => {RES_OPTIONS => 'port:54 retry:1'});
            is $core->hook('connect')->[0]{message}, "$asked{$server} 1", $server;
        }
        my $core = core([$asks], env => {RES_NAMESERVERS => '192.0.2.54', RES_OPTIONS => 'retry:3'});
        is $core->hook('connect')->[0]{message}, '192.0.2.54 53 3', "where there is none, what the environment says";
    },
    'who waits at STDIN for the client' => sub {
        my @asked;
        my $answer = sub { my $ok = shift; sub { push @asked, $_[0]{ms}; {ok => {spoke => $ok}} } };
        my $core = core([{name => 'hears', source => "$FindBin::RealBin/plugins/hears"}]);
        for (['spoke', $answer->(1)], ['silent', $answer->(0)], ['silent', {error => {code => 'not_found', message => 'not now'}}]) {
            (my $said, $core->{answers}{'client/spoke'}) = @$_;
            is_deeply $core->hook('connect')->[0]{reply}, [$said], "$said, as the core says";
        }
        is_deeply \@asked, [250, 250], 'for as long as the plugin would wait';
        $core->{answers}{'client/spoke'} = sub { $core->send({kind => 'cancel', id => $core->{next}, reason => 'timeout'}); return };
        like $core->hook('connect')->[0]{message}, qr/^died: client.spoke: cancelled: timeout/, 'until the hook is cancelled';
        delete $core->{answers}{'client/spoke'};
        is_deeply $core->hook('mail', args => {address => 'a@b.example'})->[0]{reply}, ['the pipe'], 'with others in the set all is as ever';
    },
    calls => sub {
        my $core = core([$say], answers => {config => sub {
            my ($params, undef, $call) = @_;
            is $call->{for}, 1, 'the call says which hook it is for';
            return {ok => {values => ["$params->{name} one", 'two']}};
        }});
        is_deeply rcpt($core, 'config')->{reply}, ['badmailfrom one|two'];
        $core->{answers}{config} = {error => {code => 'failed', message => 'no disk'}};
        is rcpt($core, 'config')->{message}, 'died: config: no disk (failed)';
    },
    'cancel, and hooks that come during a call' => sub {
        my $core = core([$say]);
        $core->{answers}{config} = sub {
            my ($params, undef, $call) = @_;
            $core->send($core->hook_message(rcpt => args => {address => 'deny@example.org'}, session => 's2'));
            $core->send({kind => 'cancel', id => 2, reason => 'disconnect'}, {kind => 'cancel', id => 1, reason => 'timeout'});
            return;
        };
        like rcpt($core, 'config')->{message}, qr/^died: config: cancelled: timeout/, 'a call ends at once';
        is_deeply $core->wait_for('result'), {kind => 'result', id => 2, results => []}, 'what has not begun is not run';
        is_deeply rcpt($core, 'deny')->{reply}, ['no'];
    },
    'a client that hangs up during queue' => sub {
        my $keeps = {name => 'keeps', source => 'keeps', dirs => ["$FindBin::RealBin/plugins"]};
        my $dir = File::Temp->newdir;
        my $core = core([{%$keeps, args => ["$dir/begun"]}]);
        my $leave = sub { $core->send({kind => 'cancel', id => $core->{next}, reason => 'disconnect'}) };
        $core->send($core->hook_message('queue'));
        my $until = time + $FakeCore::DEADLINE;
        select undef, undef, undef, 0.002 until -e "$dir/begun" || time > $until;
        $core->send($core->hook_message(rcpt => args => {address => 'bob@example.org'}, session => 's2'));
        $core->send({kind => 'cancel', id => 1, reason => 'disconnect'});
        is_deeply $core->wait_for('result')->{results}[0]{reply}, ['the client is gone'], 'a plugin sees it when it looks';
        is_deeply $core->wait_for('result')->{results}[0]{reply}, ['there'], 'what came before it has its turn';

        $core = core([{%$keeps, args => ['asks']}]);
        $core->{answers}{config} = sub { $leave->(); return {ok => {values => []}} };
        is $core->hook('queue')->[0]{verdict}, 'denysoft', 'a call goes on';
        $core->{answers}{config} = {ok => {values => []}};
        is $core->hook('queue')->[0]{verdict}, 'ok', 'the next client is there';
        $core->{answers}{config} = sub { $core->send({kind => 'cancel', id => $core->{next}, reason => 'timeout'}); return };
        like $core->hook('queue')->[0]{message}, qr/^died: config: cancelled: timeout/, 'any other cancel ends it';
        $core->{answers}{config} = sub {
            $core->{answers}{config} = {ok => {values => []}};
            $core->send($core->hook_message('queue', session => 's2'));
            $leave->();
            return {ok => {values => []}};
        };
        $core->send($core->hook_message('queue'));
        is $core->wait_for('result')->{results}[0]{verdict}, 'ok';
        is $core->wait_for('result')->{results}[0]{verdict}, 'denysoft', 'a hook that waits for its turn finds it';
    },
    'a config hook within a call for it' => sub {
        my $core = core([$say, {name => 'edits', source => "$FindBin::RealBin/plugins/edits"}]);
        $core->{answers}{config} = sub {
            my ($params, undef, $call) = @_;
            $core->send($core->hook_message(config => args => {name => 'mine'}, plugins => ['edits'], session => ''));
            my $nested = $core->wait_for('result');
            is_deeply $nested->{results}, [{plugin => 'edits', verdict => 'ok', values => ['one', 'two']}], 'is run at once';
            return {ok => {values => $nested->{results}[0]{values}}};
        };
        my $message = $core->hook_message(rcpt => args => {address => 'ask@example.org'}, plugins => ['say']);
        $core->send($message);
        my $result = $core->wait_for('result');
        is $result->{id}, $message->{id};
        is_deeply $result->{results}[0]{reply}, ['one|two'];
        is $result->{results}[0]{disposition}, 'fail', 'what the caller said before it asked is still its own';
        my ($unserved, $answered) = grep { $_->{kind} eq 'log' } @{$core->{heard}};
        is $unserved->{level}, 'warn', 'a hook that is never called is named';
        is_deeply [@$answered{qw(message for)}], ['answered', $message->{id}], 'a line after the answer is for the caller';
        $core->send($core->hook_message(rcpt => args => {address => 'leave@example.org'}, plugins => ['say']));
        is $core->wait_for('result'), undef;
        is $core->wait_exit, 3;
        like $core->stderr, qr/the plugin say called exit\(3\) in the hook rcpt/, 'and it is the caller that runs';
    },
    'results too large' => sub {
        my $core = core([$say]);
        is rcpt($core, 'large')->{message}, 'the result is too large for a frame';
    },
    'end of file' => sub {
        my $core = core([$say]);
        $core->send({kind => 'goodbye'}, {kind => 'something new'}, $core->hook_message(rcpt => args => {address => 'deny@x'}));
        $core->close_channel;
        is $core->wait_for('result')->{results}[0]{verdict}, 'deny', 'what was asked is answered';
        is $core->wait_exit, 0;
    },
    'version mismatch' => sub {
        my $core = FakeCore->new(env => {GATEPOST_CODEC => $codec});
        $core->send($core->hello(version => [2, 1]));
        my $text = 'gatepost 0.1.0 speaks plugin protocol 2.1, gatepost-perl 0.1.0 speaks 1.0: upgrade sdk-perl';
        is $core->wait_for('error')->{message}, $text;
        is $core->wait_exit, 1;
        is $core->stderr, "gatepost-perl: $text\n";
        $core = FakeCore->new(env => {GATEPOST_CODEC => $codec});
        $core->send($core->hello(version => [1, 7]));
        $core->close_channel;
        is $core->wait_exit, 0, 'another minor version will do';
    },
    'broken frames' => sub {
        my %frames = (
            empty => "\0\0\0\0", too_long => "\xff\xff\xff\xff", not_a_map => "\0\0\0\1\x90",
            ext => "\0\0\0\6\x81\xa1a\xd4\1\0", truncated => "\0\0\0\7\x81",
        );
        for my $error (sort keys %frames) {
            my $core = core([$say]);
            $core->send_raw($frames{$error});
            $core->close_channel;
            is $core->wait_exit, 1, "$error: exit code";
            like $core->stderr, qr/^gatepost-perl: broken frame from the core: $error: /, "$error: reason";
        }
    },
);

for my $name (grep { $_ eq 'builtin' || eval { require Data::MessagePack } } qw(builtin xs)) {
    $codec = $name;
    subtest "$name: $_" => $tests{$_} for sort keys %tests;
}

done_testing;
