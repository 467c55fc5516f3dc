use strict;
use warnings;

use File::Temp ();
use FindBin;
use Test::More;
use Gatepost::Test;
use Qpsmtpd::Constants;

# Plugin files in qpsmtpd's style, one for each part of its interface, through the test kit.

my $dir = "$FindBin::RealBin/plugins";

subtest block_sender => sub {
    my %about = (plugin => "$dir/block_sender", config => {block_senders => ['@spam.example no spam', '/^x.*y@/', 'a@b.example because']});
    my $test = Gatepost::Test->new(%about);
    my $result = $test->hook(mail => address => 'Me@Spam.Example', parameters => {SIZE => 100});
    is $result->rc, DENY;
    is $result->reply, 'no spam';
    is $result->disposition, 'fail';
    is $result->message, '@spam.example 100', 'parameters are in lower case';
    is_deeply $result->changes, [{op => 'karma', add => -1}];
    is $test->connection->notes('karma'), -1;
    is $test->hook(mail => address => 'a@b.example')->reply, 'because';
    is $test->hook(mail => address => 'x1y@anywhere.example')->reply, 'your sender address is blocked';
    is $test->hook(mail => address => 'a@example.org')->disposition, 'pass';
    is $test->hook(mail => address => '')->message, 'null sender';

    $test = Gatepost::Test->new(%about, args => [reject => 0]);
    $result = $test->hook(mail => address => 'a@spam.example');
    is $result->rc, DECLINED;
    like $result->message, qr/^tolerated, \@spam.example/;

    $test = Gatepost::Test->new(%about, settings => {reject_type => 'temp'});
    is $test->hook(mail => address => 'a@spam.example')->rc, DENYSOFT, 'a setting is an argument by name';
    is $test->plugin->settings->{reject_type}, 'temp';

    $test = Gatepost::Test->new(%about, connection => {relay_client => 1});
    is $test->hook(mail => address => 'a@spam.example')->message, 'relay client';
    $test = Gatepost::Test->new(%about, connection => {immune => 'friend'});
    is $test->hook(mail => address => 'a@spam.example')->disposition, 'skip', "the core's immunity counts";
    my %said = (immune => 'friend', whitelisted => 'whitelisted sender');
    for my $flag (sort keys %said) {
        $test = Gatepost::Test->new(%about, transaction => {$flag => 'friend'});
        is $test->hook(mail => address => 'a@spam.example')->message, $said{$flag}, "$flag in a transaction";
    }
    $test->transaction->notes(whitelistsender => 0);
    is_deeply [$test->transaction->notes('whitelistsender'), $test->connection->notes('whitelisthost')], [undef, undef];
};

subtest encrypted => sub {
    my %about = (plugin => "$dir/encrypted");
    my $test = Gatepost::Test->new(%about, connection => {hello => 'EHLO'});
    is $test->hook(mail => address => 'a@client.example')->rc, DENY;
    is_deeply $test->hook('received_line')->values, ['Received: with ESMTP'];
    my %tls = (tls_version => 'TLSv1.3', tls_cipher => 'TLS_AES_256_GCM_SHA384');
    $test = Gatepost::Test->new(%about, connection => {hello => 'EHLO', %tls});
    is $test->hook(mail => address => 'a@client.example')->rc, DECLINED, 'the note tls_enabled is set';
    is_deeply $test->hook('received_line')->values, ['Received: with (TLS_AES_256_GCM_SHA384 encrypted) ESMTPS'];
};

subtest strikes => sub {
    my $test = Gatepost::Test->new(plugin => "$dir/strikes", args => [2]);
    my $result = $test->hook(unrecognized_command => command => 'HELLO', argument => 'a b');
    is $result->verdict, undef;
    is_deeply $result->changes, [{op => 'note', scope => 'connection', name => 'strikes', value => 1}];
    is_deeply [$result->log], ["info command 'hello' with 'a b'"];
    $result = $test->hook(unrecognized_command => command => 'HELLO', argument => '');
    is_deeply [$result->log], ["info command 'hello' with nothing"];
    is $result->verdict, 'deny_disconnect';
    is $result->reply, 'Closing connection, 2 unknown commands.';
    is $result->message, '2 strikes';
    is_deeply [map { $_->{hook} } @{$test->ready->{hooks}}], ['unrecognized_command'];
    is_deeply $test->ready->{hooks}[0]{reads}, ['*'];
};

subtest 'keys of its own' => sub {
    my $test = Gatepost::Test->new(plugin => "$dir/keeps_a_priority");
    is $test->ready->{hooks}[0]{priority}, 5;
    is $test->hook(rcpt => address => 'bob@example.org')->reply, 'LOG_NOTICE';
};

subtest isa_plugin => sub {
    my $test = Gatepost::Test->new(plugin => "$dir/strikes_strictly");
    my $result = $test->hook(unrecognized_command => command => 'HELLO');
    is $result->verdict, 'deny_disconnect', "the parent's methods";
    is $test->plugin->plugin_name, 'strikes_strictly', 'the own name';
};

subtest hops => sub {
    my $message = join '', map { "Received: from host$_\n\tby host\n" } 1 .. 3;
    my $test = Gatepost::Test->new(plugin => "$dir/hops", args => [4], message => "${message}Delivered-To: x\n\nhello\n");
    my $result = $test->hook('data_post');
    is $result->reply, 'Too many hops (#5.4.6)';
    is $result->enhanced, '5.4.6';
    is +Gatepost::Test->new(plugin => "$dir/hops", message => "$message\nhello\n")->hook('data_post')->rc, DECLINED;
};

subtest rcpt_table => sub {
    my $test = Gatepost::Test->new(plugin => "$dir/rcpt_table", config => {rcpt_table => [
        'bob@example.org OK', 'a.*@example.org DENYSOFT come back later', 'x@example.org NONSENSE ?',
    ]});
    is $test->hook(rcpt => address => 'Bob@example.org')->rc, OK;
    my $result = $test->hook(rcpt => address => 'anna@example.org');
    is $result->rc, DENYSOFT;
    is $result->reply, 'come back later';
    is_deeply $result->changes->[0]{value}, {pattern => 'a.*@example.org', seen => ['anna@example.org']}, 'data in a note';
    is $test->transaction->notes('table')->{seen}[0], 'anna@example.org';
    is $test->hook(rcpt => address => 'x@example.org')->rc, DECLINED;
    is $test->hook(rcpt => address => 'postmaster')->rc, DECLINED;
};

subtest 'naughty, across plugins' => sub {
    my $test = Gatepost::Test->new(
        plugins => [
            {plugin => "$dir/block_sender", args => [reject => 'naughty', reject_type => 'temp']},
            {plugin => "$dir/late_refusal"},
        ],
        config => {block_senders => ['@spam.example no spam']},
    );
    my ($kept, $late) = @{$test->results(mail => address => 'a@spam.example')};
    is $kept->rc, DECLINED;
    is $kept->disposition, 'fail';
    like $kept->message, qr/^NAUGHTY, /;
    is_deeply [map { $_->{op} } @{$kept->changes}], ['karma', 'naughty', 'note'];
    is $kept->changes->[1]{message}, '(block_sender) no spam';
    is $late->disposition, undef, 'not its hook';
    ($kept, $late) = @{$test->results(rcpt => address => 'bob@example.org')};
    is $late->rc, DENYSOFT, 'the type of the plugin that found it';
    is $late->reply, '(block_sender) no spam';

    $test = Gatepost::Test->new(plugin => "$dir/late_refusal", connection => {naughty => 'bad'});
    is $test->hook(rcpt => address => 'bob@example.org')->rc, DENY_DISCONNECT, 'kept by a plugin in another process';
    is $test->hook(rcpt => address => 'bob@example.org')->reply, 'bad';
};

subtest 'notes live as long as they should' => sub {
    my $test = Gatepost::Test->new(plugin => "$dir/grey", transaction => {recipients => ['a@example.org', 'b@example.org']});
    my $result = $test->hook(mail => address => 'x@example.net');
    is_deeply $result->changes, [{op => 'note', scope => 'transaction', name => 'grey', value => 'new'}], 'plain ones mirrored';
    $result = $test->hook('data');
    is $result->rc, DENYSOFT;
    is $result->message, 'new for 2 recipients';
    $test->hook('reset_transaction');
    is $test->transaction->notes('grey'), undef, 'gone with the transaction';
    $test->hook(mail => address => 'x@example.net');
    is $test->hook('data')->message, 'known,  still here', 'live objects stay in the process';
};

subtest edits => sub {
    my $test = Gatepost::Test->new(
        plugin => "$dir/edits", connection => {remote_ip => '198.51.100.7', hello => 'EHLO'},
        transaction => {sender => 'old@example.net', recipients => ['bob@example.org', 'amy@example.org'],
            recipient_parameters => [{}, {NOTIFY => 'NEVER'}]},
        message => "Received: a\nSubject: hi\n there\nReceived: b\nX-Old: 1\nX-Old: 2\n\nbody\n",
    );
    is_deeply $test->hook('connect')->changes, [
        {op => 'relay_client', value => 1},
        {op => 'remote_host', name => 'mail.example.net'},
        {op => 'auth_result', text => 'iprev=pass policy.iprev=198.51.100.7'},
        {op => 'auth_result', text => 'x=y'},
        {op => 'whitelisted', reason => 'our own'},
    ];
    is $test->connection->notes('authentication_results'), 'iprev=pass policy.iprev=198.51.100.7; x=y';
    is_deeply $test->hook('data_post')->changes, [
        {op => 'add_header', name => 'X-Top', value => 'one', at => 'top'},
        {op => 'add_header', name => 'X-End', value => "two\n\tX-Forged: no", at => 'bottom'},
        {op => 'replace_header', name => 'Subject', value => "[spam] hi\n there", nth => 1},
        {op => 'remove_header', name => 'X-Old'},
        {op => 'remove_header', name => 'Received', nth => 2},
        {op => 'set_sender', address => 'new@example.net'},
        {op => 'add_recipient', address => '"a b"@example.org'},
        {op => 'remove_recipient', address => 'bob@example.org'},
    ];
    is $test->transaction->header->as_string,
        "X-Top: one\nReceived: a\nSubject: [spam] hi\n there\nX-End: two\n\tX-Forged: no\n";
    is $test->transaction->sender->address, 'new@example.net';
    is join(' ', $test->transaction->recipients), '<amy@example.org> <"a b"@example.org>';
    is_deeply [$test->transaction->recipient_parameters('amy@example.org')], [notify => 'NEVER'];
    is_deeply [$test->transaction->recipient_parameters('"a b"@example.org')], [];

    is_deeply $test->hook(mail_pre => line => 'a@example.net')->values, ['<a@example.net>'];
    is $test->hook(mail_pre => line => '<a@example.net>')->rc, DECLINED;
    is $test->hook(mail_pre => line => '')->message, 'no path';

    is_deeply $test->hook('received_line')->values, ['Received: from somewhere', "\tby here with ESMTP"];
    is_deeply $test->hook(config => name => 'mine')->values, ['one', 'two'];
    is $test->hook(config => name => 'other')->rc, DECLINED;

    my $event = $test->hook(deny => plugin => 'dnsbl', hook => 'rcpt', verdict => 'denysoft', message => 'listed');
    is_deeply [$event->log], ['info fail, dnsbl said  DENYSOFT  listed'], 'events have no result: the line is a line';
    is_deeply [$test->hook('disconnect')->log], ['crit died in disconnect: too late', 'info nevertheless'],
        'nothing that one piece of code does keeps an event from another';
    my %mode = map { $_->{hook} => $_->{mode} // 'decide' } @{$test->ready->{hooks}};
    is $mode{deny}, 'observe';
    is $mode{connect}, 'decide';
    ok !exists $mode{'post-fork'}, 'a hook the protocol has not is not announced';
};

subtest 'the body' => sub {
    my $test = Gatepost::Test->new(plugin => "$dir/scan", message => "Subject: x\n\none\n\ntwo\n");
    my $result = $test->hook('data_post');
    is $result->reply, '26|$|one$|$|two$|Subject: x$$one$$two$', 'the empty line comes first, line ends are LF';
    my @files = @{$test->transaction->notes('files')};
    ok -e, "$_ is there, a child's end notwithstanding" for @files;
    $test->hook('reset_transaction');
    ok !-e, "$_ goes with the transaction" for @files;

    my $long = join '', map { "line $_ " . 'x' x 200 . "\n" } 1 .. 5000;
    $test = Gatepost::Test->new(plugin => "$dir/scan", message => "Subject: x\n\n$long");
    my $all = join '|', 14 + length($long) + 5000, '$', split(/(?<=\n)/, $long), "Subject: x\n\n$long";
    ok $test->hook('data_post')->reply eq $all =~ s/\n/\$/gr, 'a message of several pieces';
    is +Gatepost::Test->new(plugin => "$dir/scan", message => "Subject: x\n")->hook('data_post')->reply, '12|Subject: x$',
        'no body at all';

    my $kept = File::Temp->newdir;
    for (['0700', 0700, 0600], ['02750', 02750, 0640], ['0710', 0710, 0640], ['755', 0755, 0644], [undef, 0700, 0600], ['rwx', 0700, 0600]) {
        my ($perms, $folder, $file) = @$_;
        mkdir my $scratch = "$kept/" . ($perms // 'none'), 0700;
        $test = Gatepost::Test->new(
            plugin => "$dir/scan", message => "Subject: x\n\none\n", scratch_dir => $scratch, config => {$perms ? (spool_perms => [$perms]) : ()},
        );
        $result = $test->hook('data_post');
        my $path = $test->transaction->notes('files')->[0];
        is sprintf('%o %o', map { (stat $_)[2] & 07777 } $scratch, $path), sprintf('%o %o', $folder, $file),
            'spool_perms: ' . ($perms // 'none') . ', of the folder and the file';
    }
    like join("\n", $result->log), qr/error spool_perms: rwx is no mode such as 0750/;
};

{
    my @made = map { Gatepost::Test->new(plugin => "$dir/keeps", args => ['asks'], client_gone => $_) } 0, 1;
    is_deeply [map { $_->hook('queue')->verdict } @made], ['ok', 'denysoft'], 'a client can be gone';
}

subtest 'points, and messages that are diverted' => sub {
    my $test = Gatepost::Test->new(
        plugin => "$dir/points", connection => {score => 1250}, transaction => {recipients => ['bob@example.org']}, message => "X: y\n\nz\n",
    );
    my $mail = sub { $test->hook(mail => address => "$_[0]\@example.org") };
    my $result = $mail->('2.5');
    is_deeply [map { $result->$_ } qw(verdict disposition message)], ['declined', 'fail', 'as told'];
    is_deeply $result->changes, [{op => 'score', points => 2500, reason => 'as told'}];
    $result = $mail->('-0.0004');
    is_deeply [map { $result->$_ } qw(verdict disposition)], [undef, 'pass'], 'it speaks for the client';
    is $result->changes->[0]{points}, 0;
    is $mail->('ask')->message, '3.75';
    is_deeply [map { $mail->($_)->verdict } qw(discard quarantine hold)], [qw(discard quarantine hold)];
    is $mail->('hold')->message, 'as told';
    is_deeply $test->hook('data_post')->entry->{recipients}, [{address => 'bob@example.org', verdict => 'hold'}];
};

done_testing;
