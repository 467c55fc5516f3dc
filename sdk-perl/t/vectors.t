use strict;
use warnings;

use FindBin;
use B ();
use JSON::PP ();
use Test::More;
use Gatepost::Codec;
use Gatepost::MessagePack qw(pack_bytes pack_integer pack_boolean);
use Gatepost::Schema;

# The test vectors that every SDK passes, with both codecs.

my $vectors = "$FindBin::RealBin/../../protocol/vectors";
my $frames   = read_json("$vectors/frames.json");
my $messages = read_json("$vectors/messages.json");

sub read_json {
    open my $handle, '<', $_[0] or die "$_[0]: $!";
    local $/;
    return JSON::PP->new->utf8->decode(<$handle>);
}

# JSON's value with its types for the encoder: Perl alone would forget which numbers were numbers.
sub typed {
    my $value = shift;
    if (ref $value eq 'HASH') {
        return Gatepost::Schema::encoded(pack_bytes(pack 'H*', $value->{'$bytes'})) if exists $value->{'$bytes'};
        return {map { $_ => typed($value->{$_}) } keys %$value};
    }
    return [map { typed($_) } @$value] if ref $value eq 'ARRAY';
    return $value if !defined $value || ref $value;
    my $is_number = B::svref_2object(\$value)->FLAGS & (B::SVf_IOK | B::SVf_NOK);
    return $is_number ? Gatepost::Schema::encoded(pack_integer($value)) : $value;
}

# The same value as the decoders give it: byte strings, booleans as 1 and 0.
sub plain {
    my $value = shift;
    if (ref $value eq 'HASH') {
        return pack 'H*', $value->{'$bytes'} if exists $value->{'$bytes'};
        return {map { my $key = $_; utf8::encode($key); $key => plain($value->{$_}) } keys %$value};
    }
    return [map { plain($_) } @$value] if ref $value eq 'ARRAY';
    return $value ? 1 : 0 if ref $value;
    utf8::encode($value) if defined $value;
    return $value;
}

# What a decoder gave, with the fast one's boolean objects as 1 and 0.
sub bare {
    my $value = shift;
    return {map { $_ => bare($value->{$_}) } keys %$value} if ref $value eq 'HASH';
    return [map { bare($_) } @$value] if ref $value eq 'ARRAY';
    return ref $value ? ($value ? 1 : 0) : $value;
}

my $encode = Gatepost::Schema::any();

my @codecs = (['builtin' => \&Gatepost::MessagePack::decode]);
my ($fast, $decode_fast) = Gatepost::Codec::decoder('');
push @codecs, [$fast => $decode_fast] if $fast ne 'builtin';

for my $codec (@codecs) {
    my ($name, $decode) = @$codec;
    subtest "$name: frames" => sub {
        for my $case (@{$frames->{frames}}, @$messages) {
            my $frame = pack 'H*', $case->{hex};
            is unpack('N', $frame), length($frame) - 4, "$case->{name}: length";
            my $want = plain($case->{value});
            is_deeply bare($decode->(substr $frame, 4)), $want, "$case->{name}: decoded";
            is_deeply bare($decode->($encode->(typed($case->{value})))), $want, "$case->{name}: encoded and decoded";
        }
    };
    subtest "$name: broken frames" => sub {
        for my $case (@{$frames->{broken}}) {
            my $error = refusal($decode, pack 'H*', $case->{hex});
            is $error, $case->{error}, $case->{name};
        }
    };
    subtest "$name: random bytes" => sub {
        srand 7;
        my $reference = \&Gatepost::MessagePack::decode;
        my @seeds = map { substr pack('H*', $_->{hex}), 4 } @{$frames->{frames}}, @$messages;
        my $different = 0;
        for (1 .. 3000) {
            my $bytes = $seeds[rand @seeds];
            substr $bytes, rand length $bytes, 1, chr rand 256 for 0 .. rand 3;
            my @both = map { my $code = $_; eval { $encode->(bare($code->($bytes))) } // 'refused' } $reference, $decode;
            ++$different, diag unpack 'H*', $bytes if $both[0] ne $both[1];
        }
        is $different, 0, 'whatever comes, the codecs agree';
    };
}

# Through a channel, which is what judges the length.
sub refusal {
    my ($decode, $bytes) = @_;
    require Gatepost::Channel;
    pipe my $read, my $write or die "pipe: $!";
    open my $null, '>', '/dev/null' or die "null: $!";
    my $channel = Gatepost::Channel->new($read, $null);
    $channel->{decode} = $decode;
    syswrite $write, $bytes;
    close $write;
    my $message = eval { $channel->next_frame };
    return $@ =~ /\A([a-z_]+): / ? $1 : "accepted";
}

subtest 'what a plugin sends is as the schema says' => sub {
    my %schema = map { $_ => Gatepost::Schema->can("message_$_") } qw(hello ready init_error call log error);
    for my $case (grep { $_->{from} eq 'plugin' } @$messages) {
        my $value = $case->{value};
        my $want = plain($value);
        my $frame;
        if ($value->{kind} eq 'result') {
            $frame = Gatepost::Schema::message_result(
                $value->{id}, scalar @{$value->{results}}, join '', map { $Gatepost::Schema::RESULT->($_) } map { unwrap($_) } @{$value->{results}},
            );
        }
        else {
            my $schema = $schema{$value->{kind}} or next;
            $frame = $schema->(unwrap($value));
        }
        my $got = bare(Gatepost::MessagePack::decode(substr $frame, 4));
        is_deeply without_nil($got), without_nil($want), $case->{name};
    }
};

sub unwrap {
    my $value = shift;
    return pack 'H*', $value->{'$bytes'} if ref $value eq 'HASH' && exists $value->{'$bytes'};
    return {map { $_ => unwrap($value->{$_}) } keys %$value} if ref $value eq 'HASH';
    return [map { unwrap($_) } @$value] if ref $value eq 'ARRAY';
    return $value;
}

sub without_nil {
    my $value = shift;
    return {map { $_ => without_nil($value->{$_}) } grep { defined $value->{$_} } keys %$value} if ref $value eq 'HASH';
    return [map { without_nil($_) } @$value] if ref $value eq 'ARRAY';
    return $value;
}

subtest 'text is text' => sub {
    is unpack('H*', Gatepost::MessagePack::pack_text('007')), 'a3303037';
    my $number = 7;
    is unpack('H*', Gatepost::MessagePack::pack_text($number)), 'a137', 'a number in a text field';
    my $text = '42';
    { no warnings 'void'; $text + 0; }
    is unpack('H*', Gatepost::MessagePack::pack_integer($text)), '2a', 'a text in an integer field';
    my ($bytes, $characters, $latin) = ("J\xc3\xb6rg", "J\x{f6}rg", "J\xf6rg");
    utf8::upgrade($characters);
    is unpack('H*', Gatepost::MessagePack::pack_text($_)), 'a54ac3b67267', 'UTF-8, whatever it was' for $bytes, $characters, $latin;
    is unpack('H*', Gatepost::MessagePack::pack_text("\x{20ac}")), 'a3e282ac';
    is unpack('H*', pack_bytes("\xff\x00")), 'c402ff00';
    is unpack('H*', pack_boolean($_)), $_ ? 'c3' : 'c2' for 0, 1;
    for my $n (0, 127, 128, 255, 256, 65535, 65536, 4294967295, 4294967296, 9007199254740992) {
        for my $signed ($n, -$n) {
            is Gatepost::MessagePack::decode("\x81\xa1n" . pack_integer($signed))->{n}, $signed, "the integer $signed";
        }
    }
    ok !eval { pack_integer(2**53 + 2); 1 }, 'beyond 2**53';
};

done_testing;
