use strict;
use warnings;

use Test::More;
use Gatepost::Changes;
use Gatepost::Channel;
use Gatepost::Core;
use Gatepost::Loader;
use Gatepost::Memory;
use Gatepost::Needs;
use Gatepost::Session;
use Gatepost::Settings;
use Qpsmtpd::Address;
use Qpsmtpd::Constants;
use Qpsmtpd::DSN;
use Qpsmtpd::Header;
use Qpsmtpd::Plugin;

# The classes that plugins see, one by one.

subtest constants => sub {
    is return_code($_->[0]), $_->[1], "the code $_->[0]" for [900, 'OK'], [903, 'DENY_DISCONNECT'], ['DENYSOFT', 902], ['DENYHARD', 903];
    is return_code($_), undef, "$_ is no return code" for 0, 1, 90, 9000, '', 'deny';
    is log_level('LOGWARN'), 4;
    is log_level(6), 'LOGINFO';
    is log_level(0), 'LOGEMERG';
};

subtest addresses => sub {
    my @good = (
        ['<bob@example.org>', 'bob', 'example.org', '<bob@example.org>'], ['<>', '', undef, '<>'],
        ['<postmaster>', 'postmaster', undef, '<postmaster>'], ['<"a b"@example.org>', 'a b', 'example.org', '<"a b"@example.org>'],
        ['<"a\"b"@example.org>', 'a"b', 'example.org', '<"a\"b"@example.org>'], ['<a@[192.0.2.1]>', 'a', '[192.0.2.1]', '<a@[192.0.2.1]>'],
        ['<@relay.example:a@b.example>', 'a', 'b.example', '<a@b.example>'], ['007@example.org', '007', 'example.org', '<007@example.org>'],
    );
    for my $case (@good) {
        my ($text, $user, $host, $format) = @$case;
        my $address = Qpsmtpd::Address->new($text);
        is_deeply [$address->user, $address->host, $address->format], [$user, $host, $format], $text;
    }
    is(Qpsmtpd::Address->new($_), undef, "$_ is none") for '<abuse>', '<a@@b>', '<a b@c.example>', "<a\@b\n>", '<a..b@c.example>';
    is(Qpsmtpd::Address->new('word')->format, '<>', 'a bare word is an empty object');
    for my $wire ('bob@example.org', '"a b"@example.org', '"a\\\\b"@example.org', 'postmaster', '', '"a@b"@example.org', '""@example.org') {
        is(Qpsmtpd::Address->from_wire($wire)->to_wire, $wire, "wire: $wire");
    }
    my $bob = Qpsmtpd::Address->new('bob', 'Example.org');
    ok $bob eq '<bob@example.org>', 'compared without case';
    ok $bob ne '<>', 'and with texts';
    ok(Qpsmtpd::Address->new('<>') eq '<>');
    ok $bob lt Qpsmtpd::Address->new('<a@z.example>'), 'by host first';
    $bob->notes(x => [1]);
    is_deeply $bob->notes('x'), [1];
};

# Of Mail::Header with Modify => 0, which qpsmtpd has: the same edits leave the same header, and the core is told of each of them.
subtest 'edits of a header' => sub {
    plan(skip_all => 'Mail::Header is not installed') unless eval { require Mail::Header; 1 };
    srand 7;
    for my $round (1 .. 200) {
        my @start = map { ('X-A', 'X-B', 'Subject')[rand 3] . ": $_\n" } 1 .. rand 5;
        my $theirs = Mail::Header->new([@start], Modify => 0, MailFrom => 'COERCE');
        my $ours = Qpsmtpd::Header->new([@start]);
        local $Gatepost::Changes::list = [];
        my @done;
        for my $step (1 .. 6) {
            my ($method, @arguments) = @{(
                [add => 'X-A', "n$step", map { int(rand 12) - 5 } 1 .. rand 2], [add => 'X-C', "n$step"],
                [replace => 'X-B', "r$step", int(rand 4) - 1], [replace => 'X-A', "r$step", 'X-D', "s$step"],
                [delete => 'X-A', int(rand 4) - 1], [delete => 'X-B'],
            )[rand 6]};
            push @done, "$method(@arguments)";
            $_->$method(@arguments) for $theirs, $ours;
            $ours->as_string eq $theirs->as_string or last;
        }
        is $ours->as_string, $theirs->as_string, join ', ', @done or last;
        is $ours->get($_, 1), $theirs->get($_, 1), "the second $_" for qw(X-A X-B);
        is_deeply played(join('', @start), $Gatepost::Changes::list), [$theirs->as_string =~ /(.*\n)/g], 'as the core has it' or last;
    }
};

# What the core makes of changes (docs/protocol.md, section 6.3), of fields that are one line each.
sub played {
    my ($block, $changes) = @_;
    my @lines = $block =~ /(.*\n)/g;
    for my $change (@$changes) {
        my ($op, $name, $nth) = @$change{qw(op name nth)};
        my $line = "$name: " . ($change->{value} // '') . "\n";
        my @at = grep { $lines[$_] =~ /\A\Q$name\E:/i } 0 .. $#lines;
        if ($op eq 'add_header') {
            my $at = $change->{at};
            splice @lines, $at eq 'top' ? 0 : $at eq 'bottom' || $at > @lines ? scalar @lines : $at, 0, $line;
        }
        elsif ($op eq 'replace_header') { $lines[$at[$nth - 1] // @lines] = $line }
        else                            { splice @lines, $_, 1 for reverse defined $nth ? $at[$nth - 1] : @at }
    }
    return \@lines;
}

subtest header => sub {
    my $header = Qpsmtpd::Header->new->load("Subject: one\r\n two\r\nX-A: 1\r\nx-a: 2\r\nJunk\r\n");
    is $header->get('subject'), "one\n two\n", 'values keep their folding and end in LF';
    is_deeply [$header->get('X-A')], ["1\n", "2\n"];
    is $header->get('X-A', 1), "2\n";
    is $header->get('X-B'), undef;
    is_deeply [$header->get('X-B')], [];
    is $header->count('x-a'), 2;
    is_deeply [$header->tags], ['Subject', 'X-A'];
    is $header->replace('X-A', 'three', 1), "X-A: three\n";
    is_deeply [$header->delete('X-A', 0)], ["1\n"];
    $header->replace('X-New', "here\n");
    is $header->as_string, "Subject: one\n two\nX-A: three\nJunk\nX-New: here\n";
    is $header->add('X-Whole', "X-Whole: v=1;\n b=x\n"), "X-Whole: v=1;\n b=x\n", 'a text with the name in front has it once';
    is $header->replace('X-Whole', 'x-whole: v=2'), "X-Whole: v=2\n";
    is $header->add(undef, 'X-Found: 1'), "X-Found: 1\n", 'and it may be the only place of the name';
    is_deeply [$header->delete('X-Absent')], [], 'nothing to delete';
};

subtest dsn => sub {
    is_deeply [Qpsmtpd::DSN->no_such_user(DENY, 'nobody')], [DENY, 'nobody (#5.1.1)'];
    is_deeply [Qpsmtpd::DSN->relaying_denied()], [DENY, 'Relaying denied (#5.7.1)'];
    is_deeply [Qpsmtpd::DSN->temp_resolver_failed(DENYSOFT, '')], [DENYSOFT, 'Temporary address resolution failure (#4.4.3)'];
    is_deeply [Qpsmtpd::DSN->too_many_hops('loop')], [DENY, 'loop (#5.4.6)'];
};

subtest base => sub {
    my $plugin = Qpsmtpd::Plugin->new;
    ok $plugin->is_localhost($_), "$_ is local" for '127.0.0.1', '::1';
    ok !$plugin->is_localhost($_), "$_ is not" for '192.0.2.127', '::2';
    ok $plugin->is_valid_ip($_), "$_ is an IP" for '192.0.2.255', '2001:db8::1';
    ok !$plugin->is_valid_ip($_), "$_ is none" for '0.0.0.0', '192.0.2', 'x', '255.255.255.255';
    local $Gatepost::Core::backend = Gatepost::Memory->new(
        dns => {'a.example A' => ['192.0.2.1'], 'a.example MX' => ['10 mx.a.example.'], 'slow.example A' => 'temporary'},
    );
    is_deeply [$plugin->resolve_a('a.example')], ['192.0.2.1'];
    is_deeply [$plugin->resolve_mx('a.example')], ['mx.a.example'];
    is_deeply [$plugin->resolve_a($_)], [], $_ for 'none.example', 'slow.example';
    is(Gatepost::Core::state_add('k', 2), 2);
    is(Gatepost::Core::state_add('k', -5), -3);
    Gatepost::Core::state_set('t', "\xff");
    is(Gatepost::Core::state_get('t'), "\xff");
    Gatepost::Core::state_delete('t');
    is(Gatepost::Core::state_get('t'), undef);
    is $plugin->submit(recipients => [Qpsmtpd::Address->new('<b@c>')], message => "Subject: x\n\nhello\n"), '0000000000000001';
    is_deeply $Gatepost::Core::backend->{submitted}, [{sender => '', recipients => ['b@c'], message => "Subject: x\n\nhello\n"}];
    my %told = (recipient => 'b@c', text => 'no mailbox', message => "Subject: x\n", enhanced => '5.1.1');
    is $plugin->bounce(%told, sender => '<a@b>'), '0000000000000001';
    is $plugin->bounce(%told, sender => '<>', code => 551), undef;
    is_deeply $Gatepost::Core::backend->{bounced}, [{%told, sender => 'a@b', code => 550}, {%told, sender => '', code => 551}];
    ok !eval { Gatepost::Core::call('teleport'); 1 };
    is $@->code, 'unknown_method';
};

subtest 'transactions of a session' => sub {
    my $session = Gatepost::Session->new;
    my $at = sub { my ($hook, $number, %more) = @_; ($session->update({hook => $hook, transaction => $number, %more}))[1] };
    my $greeting = $at->('helo', undef);
    is $at->('noop', undef), $greeting, 'the same between commands';
    my $first = $at->('mail', undef);
    isnt $first, $greeting, 'MAIL begins one';
    is $at->('rcpt', 1), $first, 'also before it has a number';
    is $at->('data', 1), $first;
    my $second = $at->('mail', 2);
    isnt $second, $first, 'another number is another transaction';
    is $at->('rcpt', 2), $second;
    isnt $at->('noop', undef), $second, 'none is none';
};

subtest 'notes from other plugins' => sub {
    my $session = Gatepost::Session->new;
    my $with = sub { $session->update({hook => 'noop', notes => {connection => $_[0]}}, 1) };
    my $connection = $session->qp->connection;
    my $data = {a => [1, 2]};
    {
        local $Gatepost::Changes::list = [];
        $connection->notes(mine => $data);
        $connection->notes(live => sub { 1 });
        is_deeply [map { $_->{name} } @$Gatepost::Changes::list], ['mine'], 'live objects are not mirrored';
        push @{$data->{a}}, 3;
        is_deeply $Gatepost::Changes::list->[0]{value}, {a => [1, 2]}, 'what is sent is what it was';
        $connection->notes(big => 'x' x 70_000);
        is scalar @$Gatepost::Changes::list, 1, 'nor what the core would refuse';
    }
    $with->({mine => {a => ['1', '2', '3']}, theirs => 'x'});
    is $connection->notes('mine'), $data, 'unchanged: the same reference';
    is $connection->notes('theirs'), 'x';
    my $new = {a => [9]};
    $with->({mine => $new});
    is_deeply $connection->notes('mine'), {a => [9]}, 'changed by another plugin';
    push @{$connection->notes('mine')->{a}}, 10;
    is_deeply $new, {a => [9]}, "what a plugin edits is the plugins' own";
    is $connection->notes('theirs'), undef, 'removed by another plugin';
    ok $connection->notes('live') && $connection->notes('big'), 'what stayed here stays';
};

# A handle that takes three bytes at a time, and one in between that a signal interrupts.
package Dribble {
    use Errno 'EINTR';
    sub TIEHANDLE { bless {taken => '', calls => 0} }
    sub BINMODE   { 1 }
    sub WRITE {
        my ($self, $bytes, $length) = @_;
        if (++$self->{calls} == 2) { $! = EINTR; return }
        $self->{taken} .= substr $bytes, 0, $length < 3 ? $length : 3;
        return $length < 3 ? $length : 3;
    }
}

subtest 'a reader that takes little at a time' => sub {
    my $to = tie *DRIBBLE, 'Dribble';
    open my $from, '<', '/dev/null' or die "null: $!";
    my $channel = Gatepost::Channel->new($from, \*DRIBBLE);
    $channel->send($_) for 'seven b', 'ytes';
    ok $channel->flush;
    is $to->{taken}, 'seven bytes';
    $channel->send('more');
    is $channel->next_frame, undef, 'reading sends what waits';
    is $to->{taken}, 'seven bytesmore';
};

subtest settings => sub {
    my @declared = (
        {name => 'n', type => 'integer', default => 5}, {name => 't', type => 'text', required => 1},
        {name => 'w', type => 'duration'}, {name => 's', type => 'size'}, {name => 'b', type => 'boolean'}, {name => 'l', type => 'list'},
    );
    my ($settings, @errors) = Gatepost::Settings::check(\@declared, {t => '007', w => '5s', s => '10MB', b => 1, l => ['a']});
    is_deeply \@errors, [];
    is_deeply $settings, {n => 5, t => '007', w => 5000, s => 10 * 1024**2, b => 1, l => ['a']};
    ($settings, @errors) = Gatepost::Settings::check(\@declared, {n => 'x', w => '5 parsecs', l => 'a', z => 1});
    is_deeply [map { "$_->{path}[0]: $_->{message}" } @errors], [
        'n: `n` should be a whole number', 't: `t` is missing', 'w: `w` should be a duration such as "5s"',
        'l: `l` should be a list of texts', 'z: unknown setting `z`; there are: n, t, w, s, b, l',
    ];
};

subtest 'what a plugin is sent' => sub {
    my $needs = sub {
        my $needs = Gatepost::Needs::_of($_[0]);
        return join ' ', (sort keys %{$needs->{fields}}), $needs->{notes}[0] ? "NOTES @{$needs->{notes}}" : ();
    };
    my $all = join ' ', (sort(Gatepost::Hooks::all_fields())), 'NOTES *';
    is $needs->('sub hook_connect { return DENY if $_[0]->connection->remote_ip =~ /^10/ }'), 'remote_ip';
    is $needs->('return DECLINED if $self->is_immune; $self->adjust_karma(-1)'), 'immune karma relay_client whitelisted';
    is $needs->('$transaction->body_getline'), 'body_start header_end size';
    is $needs->('$self->get_reject("no")'), 'naughty NOTES naughty_reject_type';
    is $needs->('use strict; use POSIX qw(floor); eval { require Net::DNS }; $x->notes("a")'), 'NOTES *';
    is $needs->("=head1 NAME\n\nuse My::Site; header\n\n=cut\nsub x {}\n# sender\n__END__\nrecipient"), '', 'only code counts';
    is $needs->($_), $all, $_
        for 'use My::Site;', 'require My::Site', 'eval { require My::Site }', 'eval "use $x"', '$self->isa_plugin("x")', "use My::Site 'x';",
        'require $file;', "  do '/etc/site.pl';";
};

subtest 'names and levels'  => sub {
    is Gatepost::Loader::package_name($_->[0]), $_->[1], $_->[0]
        for ['queue/qmail-queue', 'queue::qmail_2dqueue'], ['ident/p0f:2', 'ident::p0f_3a2'], ['a', 'a'];
    my $memory = local $Gatepost::Core::backend = Gatepost::Memory->new;
    for my $case (['2', 'crit'], ['+1', 'debug'], ['-2', 'warn'], ['-9', 'emerg'], [undef, 'info']) {
        my ($level, $want) = @$case;
        Qpsmtpd::Plugin->new(_args => {loglevel => $level}, _gatepost => {name => 'x'})->log(LOGINFO, 'hello');
        is +($memory->take_log)[0]{level}, $want, 'loglevel ' . ($level // 'not set');
    }
};

done_testing;
