package Gatepost::Schema;

# What goes over the wire, as types: text(), bytes(), integer(), boolean(), list_of(TYPE), map_of(TYPE), any() and
# record(KEY => TYPE, ...). A type is a code reference from a value to its MessagePack bytes.
#
# message_* build whole frames, length included. A record leaves out every key whose value is undef: the protocol
# takes nil and absent for the same.

use strict;
use warnings;

use B ();
use Scalar::Util 'blessed';
use Gatepost::MessagePack qw(pack_text pack_bytes pack_integer pack_boolean map_head array_head);

our $MAX_FRAME = 1_048_576;
our @VERSION   = (1, 0);
our $PROTOCOL  = 'gatepost-plugin';
our @FEATURES  = qw(cancel segments settings fork then unfinished);

sub text    { \&pack_text }
sub bytes   { \&pack_bytes }
sub integer { \&pack_integer }
sub boolean { \&pack_boolean }

sub list_of {
    my $type = shift;
    return sub { array_head(scalar @{$_[0]}) . join '', map { $type->($_) } @{$_[0]} };
}

sub map_of {
    my $type = shift;
    return sub {
        my $map = $_[0];
        return map_head(scalar keys %$map) . join '', map { pack_text($_) . $type->($map->{$_}) } sort keys %$map;
    };
}

sub record {
    my @fields;
    while (my ($key, $type) = splice @_, 0, 2) {
        push @fields, [$key, pack_text($key), $type];
    }
    return sub {
        my ($n, $out) = (0, '');
        for my $field (@fields) {
            my $value = $_[0]{$field->[0]};
            next unless defined $value;
            ++$n;
            $out .= $field->[1] . $field->[2]->($value);
        }
        return map_head($n) . $out;
    };
}

# Data without a schema (notes). Perl cannot tell 7 from "7", and a guess that is right today turns `007` into 7
# tomorrow, so every scalar is text; readers in other languages convert. Booleans are recognised as JSON::PP's.
sub any {
    return \&_any;
}

sub _any {
    my $value = $_[0];
    return "\xc0" unless defined $value;
    if (ref $value eq 'HASH')  { return map_of(\&_any)->($value) }
    if (ref $value eq 'ARRAY') { return list_of(\&_any)->($value) }
    if (ref $value eq 'Gatepost::Schema::Encoded') { return $$value }
    if (blessed $value && $value->isa('JSON::PP::Boolean')) { return pack_boolean($$value) }
    return pack_text($value);
}

# What is a word or a number.
sub _text_or_integer { $_[0] =~ /\A-?[0-9]+\z/ ? pack_integer($_[0]) : pack_text($_[0]) }

# A setting, as the configuration would have it. What Perl itself has as a number is one: 0 + $limit, and never a text that only looks like it.
sub _setting {
    my $value = $_[0];
    if (ref $value eq 'HASH')  { return map_of(\&_setting)->($value) }
    if (ref $value eq 'ARRAY') { return list_of(\&_setting)->($value) }
    if (defined $value && !ref $value) {
        my $flags = B::svref_2object(\$value)->FLAGS;
        return pack_integer($value) if $flags & (B::SVf_IOK | B::SVf_NOK) && !($flags & B::SVf_POK);
    }
    return _any($value);
}

# A value whose type the caller knows where the schema says any().
sub encoded {
    my $bytes = shift;
    return bless \$bytes, 'Gatepost::Schema::Encoded';
}

# The key `kind` first, so that a person who looks at the bytes sees at once what they are.
sub message {
    my ($kind, @fields) = @_;
    my $record = record(kind => text(), @fields);
    return sub { frame($record->({kind => $kind, %{$_[0]}})) };
}

sub frame {
    my $n = length $_[0];
    die "too_long: a message of $n bytes, $MAX_FRAME is the limit\n" if $n > $MAX_FRAME;
    return pack('N', $n) . $_[0];
}

my $change = record(
    op => text(), scope => text(), name => text(), value => any(),
    address => text(), add => integer(), points => integer(), nth => integer(), reason => text(), message => text(), text => text(),
    route => text(), ip => text(), port => integer(), info => text(),
);
# The one key whose type depends on `op`: a header's value is bytes, a note's anything, relay_client's a flag.
my %change = (
    relay_client => record(op => text(), value => boolean(), reason => text()),
    (map { $_ => record(op => text(), name => text(), value => bytes(), at => \&_text_or_integer, nth => integer()) }
        qw(add_header replace_header)),
);

my @found = (
    disposition => text(), message => text(), verdict => text(), code => integer(), enhanced => text(),
    reply => list_of(text()),
);

our $RESULT = record(
    plugin => text(), @found, recipients => list_of(record(address => text(), @found)),
    changes => list_of(sub { ($change{$_[0]{op}} // $change)->($_[0]) }),
    values => list_of(text()), settings => map_of(\&_setting), defer => text(), delay_ms => integer(),
);

my $hook = record(
    hook => text(), mode => text(), fields => list_of(text()), reads => list_of(text()), timeout_ms => integer(),
    priority => \&_text_or_integer,
);
my $setting = record(name => text(), type => text(), default => any(), required => boolean(), help => text());
my $ready_plugin = record(
    name => text(), hooks => list_of($hook), settings => list_of($setting),
    policy => record(reject => any(), reject_type => text(), on_error => text(), loglevel => text(), immune => boolean()),
);
my $params = record(
    name => text(), type => text(), key => text(), value => bytes(), ttl_ms => integer(), add => integer(),
    sender => text(), recipients => list_of(text()), recipient => text(), text => text(), code => integer(),
    enhanced => text(), message => bytes(),
    offset => integer(), length => integer(), ms => integer(), address => text(),
);

*message_hello = message(
    hello => protocol => text(), version => list_of(integer()), sdk => text(), features => list_of(text()),
);
*message_ready = message(ready => concurrency => integer(), plugins => list_of($ready_plugin));
*message_init_error = message(
    init_error => errors => list_of(record(
        plugin => text(), message => text(),
        path => list_of(sub { $_[0] =~ /\A[0-9]+\z/ ? pack_integer($_[0]) : pack_text($_[0]) }),
    )),
);
*message_call = message(call => id => integer(), for => integer(), method => text(), params => $params);
*message_log  = message(log => level => text(), message => text(), plugin => text(), for => integer(), then => boolean(), told => boolean());
*message_error = message(error => message => text());

# A result, which answers every hook, is put together by hand from its id and all the rest: results() makes that of
# encoded entries, and it is mostly the same as the last time. The id has the widest form there is (0xcf and 8 bytes),
# so that one pack is all it takes.
my %head = map {
    my $kind = $_;
    $kind => [map { map_head($_) . pack_text('kind') . pack_text($kind) . pack_text('id') . "\xcf" } 3, 4];
} qw(result unfinished);
our ($result_head, $results_head) = @{$head{result}};
my ($results_key, $then_key) = map { pack_text($_) } qw(results then);

sub results { return $results_key . array_head(scalar @_) . join '', @_ }

# $then: what results() made for the hook that came behind the one that was asked, if it was run.
sub message_result {
    my ($id, $results, $then) = @_;
    my $head = $result_head;
    if (defined $then) {
        $head = $results_head;
        $results .= $then_key . substr $then, length $results_key;
    }
    my $n = length($head) + 8 + length $results;
    die "too_long: a result of $n bytes, $MAX_FRAME is the limit\n" if $n > $MAX_FRAME;
    return pack 'N a* Q> a*', $n, $head, $id, $results;
}

# The same for a hook that does not come to its end: the last entry is that of the plugin that it is at.
sub message_unfinished {
    local ($result_head, $results_head) = @{$head{unfinished}};
    return message_result(@_);
}

1;
