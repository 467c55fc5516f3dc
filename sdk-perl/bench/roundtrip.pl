#!/usr/bin/env perl

# How long a hook takes to the real program and back, over two pipes, without a daemon: p50 and p99 in microseconds
# for both codecs, one plugin, and twenty plugins in one segment as a ratio to one.
#
#   perl sdk-perl/bench/roundtrip.pl [ROUNDS]      default 10000

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib", "$FindBin::RealBin/../t/lib";
use FakeCore;
use Time::HiRes 'time';

my $rounds = shift // 10_000;

my %connection = (
    remote_ip => '192.0.2.1', local_ip => '192.0.2.25', remote_port => 51234, local_port => 25,
    remote_host => 'client.example.net', direction => 'inbound', hello => 'EHLO', hello_host => 'client.example.net',
    relay_client => 0, karma => 0, auth_results => [],
);

sub measure {
    my ($codec, $plugins) = @_;
    my $core = FakeCore->new(env => {GATEPOST_CODEC => $codec});
    my $ready = $core->start(map { {name => "quiet$_", source => "$FindBin::RealBin/quiet"} } 1 .. $plugins);
    die "the plugin did not start\n" unless $ready && $ready->{kind} eq 'ready';
    my %wanted = map { $_ => 1 } map { @{$_->{fields}} } map { @{$_->{hooks}} } @{$ready->{plugins}};
    my $asked = sub { my %fields = @_; return {map { $_ => $fields{$_} } grep { $wanted{$_} } keys %fields} };
    my $frame = FakeCore::frame($core->hook_message('rcpt',
        id => 4711, session => '3f9a1c', transaction => 1, connection => $asked->(%connection),
        args => {address => 'bob@example.org', parameters => {}},
        transaction_fields => $asked->(sender => 'alice@example.net', recipients => ['carol@example.org']),
    ));
    my ($in, $out) = @$core{qw(in out)};
    my @took;
    for my $round (1 .. $rounds + 500) {
        my $start = time;
        syswrite $out, $frame;
        sysread $in, my $answer, 65536;
        push @took, time - $start if $round > 500;
        die "a broken answer\n" unless length $answer == 4 + unpack 'N', $answer;
    }
    @took = sort { $a <=> $b } @took;
    return map { 1e6 * $took[$_ * @took] } 0.5, 0.99;
}

for my $codec ('builtin', eval { require Data::MessagePack } ? 'xs' : ()) {
    my ($one, $one99) = measure($codec, 1);
    my ($many, $many99) = measure($codec, 20);
    printf "%-8s  1 plugin:   p50 %6.1f  p99 %6.1f µs\n", $codec, $one, $one99;
    printf "%-8s  20 plugins: p50 %6.1f  p99 %6.1f µs   %.2f times one\n", $codec, $many, $many99, $many / $one;
}
