package Qpsmtpd::Config;

# config($name): what a flat file says. Asked in this order: hooks user_config (where an address is given), hooks config, the core
# or, without one, a file; then a default.
#
# get($name)             list: the lines; scalar: the first
# get($name, 'map')      a reference to a hash: of NAME.cdb if CDB_File reads it, else of the lines, `key: value`
# get($name, $address)   a Qpsmtpd::Address: that recipient's own, else everybody's. A plain hash in that place is ignored, as ever
# config_dir($name)      the folder where a file of that name is: $QPSMTPD_CONFIG, config/ beside the program, qmail's control/
#
# A file has a value a line; empty lines and lines with # in front are none; `$include FILE` or a folder is read in its place.

use strict;
use warnings;

use File::Basename ();
use Gatepost::Core;
use Qpsmtpd::Constants;

our %defaults = (timeout => 1200);

sub new { return bless {}, shift }
sub config { shift; return get(@_) }

sub get {
    my ($name, $kind) = @_;
    my @values = _values($name, $kind);
    return _map($name, @values) if defined $kind && !ref $kind && $kind eq 'map';
    return wantarray ? @values : $values[0];
}

sub _values {
    my ($name, $kind) = @_;
    my $recipient = ref $kind && eval { $kind->can('address') } ? $kind : undef;
    my $backend = $Gatepost::Core::backend;
    # The core asks its plugins itself.
    if (!$backend || !$backend->can('asks_plugins')) {
        my @own = $recipient ? _asked('user_config', $recipient, $name) : ();
        return @own if @own;
        my @values = _asked('config', $name);
        return @values if @values;
    }
    my @values = $backend ? Gatepost::Core::config($name, $recipient) : from_files($name);
    return @values if @values;
    return $name eq 'me' ? $Gatepost::Core::about{hostname} : $defaults{$name} // ();
}

# What the hooks of the plugins of this process answer.
sub _asked {
    my ($hook, @arguments) = @_;
    my $qp = $Qpsmtpd::Plugin::current_qp;
    for my $entry (@{$Qpsmtpd::hooks->{$hook} // []}) {
        my ($rc, @values) = eval { $entry->{code}->($qp, $qp ? $qp->transaction : undef, @arguments) };
        warn "$entry->{name}: $@" if $@;
        return map { split /\n/ } grep { defined } @values if defined $rc && $rc eq OK;
    }
    return;
}

sub _map {
    my ($name, @lines) = @_;
    my $file = config_dir(undef, $name) . "/$name.cdb";
    if (!@lines && -e $file && eval { require CDB_File; 1 }) {
        tie my %map, 'CDB_File', $file or return {};
        return {%map};
    }
    return {map { my ($key, $value) = split /[:\s]\s*/, $_, 2; ($key => $value // '') } @lines};
}

sub home { return File::Basename::dirname($ENV{PROCESS} // $0) }

sub config_dir {
    my (undef, $name) = @_;
    for my $dir ($ENV{QPSMTPD_CONFIG} // (), home() . '/config', ($ENV{QMAIL} || '/var/qmail') . '/control') {
        return $dir if !defined $name || -e "$dir/$name" || -e "$dir/$name.cdb";
    }
    return home() . '/config';
}

sub from_files {
    my $name = shift;
    return _read(config_dir(undef, $name) . "/$name", {});
}

sub _read {
    my ($path, $seen) = @_;
    return if $seen->{$path}++;
    if (-d $path) {
        opendir my $dir, $path or return;
        return map { _read("$path/$_", $seen) } sort grep { -f "$path/$_" } readdir $dir;
    }
    open my $handle, '<', $path or return;
    my @values;
    while (my $line = <$handle>) {
        $line =~ s/\A\s+|\s+\z//g;
        next if $line eq '' || $line =~ /\A#/;
        if (my ($included) = $line =~ /\A\$include\s+(.+)/) {
            $included = File::Basename::dirname($path) . "/$included" unless $included =~ m{\A/};
            push @values, _read($included, $seen);
        }
        else { push @values, $line }
    }
    return @values;
}

1;
