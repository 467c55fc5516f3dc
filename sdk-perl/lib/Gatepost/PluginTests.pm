package Gatepost::PluginTests;

# Runs the tests of plugins in qpsmtpd's own form, in memory: t/plugin_tests/NAME, which is compiled as a part of the plugin NAME, has a
# sub register_tests that names subs by register_test; they are called as methods of the plugin, and use Test::More.
#
# run($line, %about)   $line is as in config/plugins; about: dirs (of plugins; those of the flat file plugin_dirs unless said),
#                      connection (fields). Gives the plugin object. The working folder is the one with t/ in it

use strict;
use warnings;

use Test::More;
use Qpsmtpd::Plugin;
use Qpsmtpd::SMTP;

sub run {
    my ($line, %about) = @_;
    my $qp = Qpsmtpd::SMTP->new;
    $qp->{_test_mode} = 1;
    $qp->connection->start(
        remote_ip => '127.0.0.1', remote_host => 'localhost', remote_port => 50000, local_ip => '127.0.0.1', local_port => 25,
        %{$about{connection} // {}},
    );
    my $plugin = $qp->_load_plugin($line, $about{dirs} ? @{$about{dirs}} : $qp->plugin_dirs);
    $plugin->run_tests($qp);
    return $plugin;
}

package Qpsmtpd::Plugin;

sub register_test {
    my ($self, $name) = @_;
    push @{$self->{_tests} //= []}, $name;
    return;
}

sub register_tests { }

sub mock_hook     { my $self = shift; return $self->qp->mock_hook(@_) }
sub unmock_hook   { my $self = shift; return $self->qp->unmock_hook(@_) }
sub mock_config   { my $self = shift; return $self->qp->mock_config(@_) }
sub unmock_config { $_[0]->qp->unmock_config }

sub run_tests {
    my ($self, $qp) = @_;
    local $self->{_qp} = $qp;
    no warnings 'once';
    local $Qpsmtpd::Plugin::current_qp = $qp;
    $self->register_tests;
    for my $name (@{$self->{_tests} // []}) {
        Test::More::subtest($name, sub {
            $self->$name;
            Test::More::pass("$name found nothing wrong") unless Test::More->builder->current_test;
        });
    }
    return;
}

1;
